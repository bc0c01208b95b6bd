import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { afterEach, describe, expect, it } from "@jest/globals";
import { AuditVerification } from "../../../src/proxy/audit-verify.ts";
import { Cleanups, eventually, POD, type Rig, SESSION, startUpstream } from "./rig.ts";
import { call, result, sendJson, sessionWithServer } from "./session-with-server.ts";

const TOKEN = "CNRY-audit-token-4Vx9Lm2Q";
const KEY = "CNRY-audit-model-key-8Jd2";

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

function recordsOf(rig: Rig): Record<string, unknown>[] {
  return rig.auditLines.map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe("the audit log of the proxy", () => {
  it("has a record of every use, with what was decided and never what was said", async () => {
    const model = await startUpstream(cleanups, (_received, response) => response.end(KEY));
    const { rig } = await sessionWithServer(
      cleanups,
      TOKEN,
      ({ headers }, response) => sendJson(response, result(1, `${headers.authorization}`)),
      { modelBaseUrl: model.url, modelApiKey: KEY },
    );
    const args = { note: "the-argument", amount: 12 };
    const asked = call("echo", 1, args);
    const meta = { "drover.dev/idempotency-key": "toolu_1" };

    await rig.post("/mcp/docs", { ...asked, params: { ...asked.params, _meta: meta } });
    await rig.post("/model/v1/messages?beta=true", { prompt: "the-prompt" });
    await eventually("the records", () => rig.auditLines.length === 2);

    const [tool, messages] = recordsOf(rig);
    expect(tool).toMatchObject({
      audit: true,
      seq: 1,
      pod_uid: POD,
      tenant: "team-a",
      session: SESSION,
      epoch: 1,
      role: "mcp",
      tool_use_id: "toolu_1",
      server_ref: "docs",
      method: "tools/call",
      tool: "echo",
      args_sha256: createHash("sha256").update('{"amount":12,"note":"the-argument"}').digest("hex"),
      cred_id: "main/docs",
      cred_version: expect.any(String),
      decision: "allow",
      rule: "always_allow",
      upstream_status: 200,
      redactions: 1,
    });
    expect(tool?.["bytes_in"]).toBeGreaterThan(100);
    expect(tool?.["bytes_out"]).toBeGreaterThan(50);
    expect(messages).toMatchObject({
      role: "model",
      server_ref: "model",
      method: "/v1/messages",
      cred_id: "model-key",
      decision: "allow",
      redactions: 1,
    });
    const text = rig.auditLines.join("\n");
    for (const word of [TOKEN, KEY, "the-argument", "the-prompt", "beta=true", "http://"]) {
      expect(text).not.toContain(word);
    }
  });

  it("has a record of every refusal and its reason", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);

    await rig.post("/mcp/docs", call("delete"));
    await rig.post("/mcp/other", call("echo"));
    await rig.post("/mcp/docs", { jsonrpc: "2.0", id: 1, method: "resources/read" });
    await rig.post("/mcp/docs", call("echo"), { authorization: "Bearer forged" });
    await rig.post("/mcp/docs", "[");
    await rig.post("/model/v1/messages", {}, { "x-api-key": "mine-mine-mine" });
    rig.leases.set(SESSION, { token: "lease-2", epoch: 2, owner: "pod-2", terminated: false });
    const late = await rig.post("/mcp/docs", call("echo"), {
      authorization: `Bearer ${await rig.token(SESSION, "lease-2").catch(() => "none")}`,
    });
    await eventually("the records", () => rig.auditLines.length === 7);

    expect(late.status).toBe(401);
    expect(recordsOf(rig).map(({ decision, rule }) => [decision, rule])).toEqual([
      ["deny", "FORBIDDEN"],
      ["deny", "NOT_FOUND"],
      ["deny", "METHOD_REFUSED"],
      ["deny", "UNAUTHENTICATED"],
      ["deny", "INPUT_INVALID"],
      ["deny", "FOREIGN_CREDENTIAL"],
      ["deny", "UNAUTHENTICATED"],
    ]);
    expect(upstream.received).toEqual([]);
    expect(rig.auditLines.join("")).not.toContain("mine-mine");
  });

  it("says of a use that failed on the way that it was allowed, and how it failed", async () => {
    const { rig } = await sessionWithServer(cleanups, TOKEN, (_received, response) => {
      response.writeHead(307, { location: "http://127.0.0.1:1/" }).end();
    });

    await rig.post("/mcp/docs", call("echo"));
    await eventually("the record", () => rig.auditLines.length === 1);

    expect(recordsOf(rig)[0]).toMatchObject({
      decision: "allow",
      error: "UPSTREAM_REFUSED",
      upstream_status: 307,
    });
  });

  it("that cannot be written lets no tool be called, and lists still be read", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);
    rig.auditDown = true;
    await rig.post("/mcp/docs", call("echo"));
    await eventually("the waiting record", () => rig.logLines.join("").includes("not written"));

    const refused = await rig.post("/mcp/docs", call("echo"));
    const listed = await rig.post("/mcp/docs", { jsonrpc: "2.0", id: 1, method: "tools/list" });

    expect(await refused.json()).toMatchObject({
      error: { message: expect.stringContaining("audit log"), data: { code: "UNAVAILABLE" } },
    });
    expect(listed.status).toBe(200);
    expect(upstream.received).toHaveLength(2);

    rig.auditDown = false;
    expect(await (await rig.post("/mcp/docs", call("echo"))).json()).toHaveProperty("result");
    await eventually("all records", () => rig.auditLines.length === 4);
    const verification = new AuditVerification([]);
    for (const line of rig.auditLines) verification.add(line);
    expect(verification.report().problems).toEqual([]);
  });
});

describe("drover audit verify", () => {
  async function verify(lines: readonly string[], args: readonly string[] = []) {
    const child = spawn(process.execPath, ["src/cmd/drover.ts", "audit", "verify", ...args], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    child.stdin.end(lines.map((line) => `${line}\n`).join(""));
    const code = await new Promise((resolve) => child.once("close", resolve));
    return { code, output };
  }

  it("is content with a whole log, and says what is wrong with another", async () => {
    const { rig } = await sessionWithServer(cleanups, TOKEN);
    for (let each = 0; each < 3; each += 1) await rig.post("/mcp/docs", call("echo"));
    await eventually("the records", () => rig.auditLines.length === 3);
    const [first, , third] = rig.auditLines;

    const whole = await verify([...rig.logLines, ...rig.auditLines]);
    const cut = await verify([first ?? "", third ?? ""]);
    const none = await verify(rig.logLines);

    expect(whole).toEqual({
      code: 0,
      output: expect.stringMatching(/ends at 3:[0-9a-f]{64}\n3 records, 1 chains, 0 problems\n$/),
    });
    expect(cut).toEqual({ code: 1, output: expect.stringContaining("record 3 follows 1") });
    expect(none).toEqual({ code: 1, output: expect.stringContaining("0 records") });
    const head = /chain (\S+) of pod \S+ ends at (\S+)/.exec(whole.output);
    const checkpoint = `${head?.[1]}:${head?.[2]}`;
    expect((await verify(rig.auditLines, ["--checkpoint", checkpoint])).code).toBe(0);
    expect((await verify([first ?? ""], ["--checkpoint", checkpoint])).code).toBe(1);
    expect((await verify([], ["--checkpoint", "x"])).code).toBe(2);
  });
});
