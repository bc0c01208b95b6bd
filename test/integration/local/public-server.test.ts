import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { Cleanups } from "../../cleanups.ts";
import { startMcpServer } from "../proxy/mcp-server.ts";

/** `drover run` with an MCP server for which no vault has an entry. */

const script = `
scenarios:
  asks:
    turns:
      - say: I ask.
        tools: [{ name: mcp__docs__echo, input: { text: hello there } }]
      - say: All done.
`;

const session = (url: string, vaultRefs = "") => `
apiVersion: drover.dev/v1alpha1
kind: AgentSession
metadata: { name: asks }
spec:
  agent:
    model: "scripted:asks"
    mcpServers: [{ name: docs, url: "${url}" }]
    tools: [{ type: mcp_toolset, mcpServerName: docs, defaultConfig: { permissionPolicy: always_allow } }]
  messages: [{ text: Go. }]
  ${vaultRefs}
`;

const vault = (url: string) => `
apiVersion: drover.dev/v1alpha1
kind: CredentialVault
metadata: { name: team }
spec: { entries: [{ name: docs, mcpServerUrl: "${url}", secretRef: { name: docs-token } }] }
---`;

const cleanups = new Cleanups();
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drover-local-public-"));
  writeFileSync(join(folder, "script.yaml"), script);
});

afterEach(async () => {
  await cleanups.run();
  rmSync(folder, { recursive: true, force: true });
});

async function run(manifest: string, authority: string): Promise<string> {
  writeFileSync(join(folder, "manifest.yaml"), manifest);
  const program = join(process.cwd(), "src/cmd/drover.ts");
  const args = ["run", "-f", "manifest.yaml", "--script", "script.yaml", "--data-dir", "data"];
  const child = spawn(process.execPath, [program, ...args, "--allow-server", authority], {
    cwd: folder,
    env: { PATH: process.env["PATH"], HOME: folder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString("utf8");
    });
  }
  await once(child, "close");
  return output;
}

it("a public server is used without a vault and without a credential", async () => {
  const server = await startMcpServer(cleanups, { token: undefined });

  const output = await run(session(server.url), server.authority);

  expect(output).toContain("hello there");
  expect(output).not.toContain("session.error");
  expect(server.calls).toEqual(["echo"]);
  expect(new Set(server.authorizations)).toEqual(new Set([undefined]));
}, 60_000);

it("a server that wants a credential: the session says which entry was nearly for it", async () => {
  const server = await startMcpServer(cleanups, { token: "CNRY-local-public-1" });
  const manifest = vault(`${server.url}/v2`) + session(server.url, "vaultRefs: [{ name: team }]");

  const output = await run(manifest, server.authority);

  expect(output).toContain("mcp_authentication_failed_error");
  expect(output).toContain('nearly: entry "docs" of vault "team": the path differs');
  expect(server.calls).toEqual([]);
}, 60_000);
