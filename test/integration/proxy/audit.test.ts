import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { signCheckpoint } from "../../../src/protocol/signed-checkpoint.ts";
import { generateSigningKey, type SigningKey } from "../../../src/protocol/tokens.ts";
import { auditRecord } from "../../../src/proxy/audit-record.ts";
import { AuditVerification } from "../../../src/proxy/audit-verify.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { POD, type Rig, SESSION, startUpstream } from "./rig.ts";
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
      podUid: POD,
      namespace: "team-a",
      sessionId: SESSION,
      epoch: 1,
      role: "mcp",
      toolCallId: "toolu_1",
      server: "docs",
      method: "tools/call",
      tool: "echo",
      argsSha256: createHash("sha256").update('{"amount":12,"note":"the-argument"}').digest("hex"),
      credential: "main/docs",
      credentialVersion: expect.any(String),
      decision: "allow",
      rule: "always_allow",
      upstreamStatus: 200,
      redactions: 1,
    });
    expect(tool?.["bytesIn"]).toBeGreaterThan(100);
    expect(tool?.["bytesOut"]).toBeGreaterThan(50);
    expect(messages).toMatchObject({
      role: "model",
      server: "model",
      method: "/v1/messages",
      credential: "model-key",
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
      code: "UPSTREAM_REFUSED",
      upstreamStatus: 307,
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
  async function verify(lines: readonly string[], args: readonly string[]) {
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

    const alone = ["--consistency-only"];
    const whole = await verify([...rig.logLines, ...rig.auditLines], alone);
    const cut = await verify([first ?? "", third ?? ""], alone);
    const none = await verify(rig.logLines, alone);

    expect(whole).toEqual({
      code: 0,
      output: expect.stringMatching(/ends at 3:[0-9a-f]{64}\n3 records, 1 chains, 0 problems\n/),
    });
    expect(cut).toEqual({ code: 1, output: expect.stringContaining("record 3 follows 1") });
    expect(none).toEqual({ code: 1, output: expect.stringContaining("0 records") });
    const head = /chain (\S+) of pod \S+ ends at (\S+)/.exec(whole.output);
    const checkpoint = `${head?.[1]}:${head?.[2]}`;
    expect((await verify(rig.auditLines, ["--checkpoint", checkpoint])).code).toBe(0);
    expect((await verify([first ?? ""], ["--checkpoint", checkpoint])).code).toBe(1);
    expect((await verify([], ["--checkpoint", "x"])).code).toBe(2);
  });

  it("is content with checkpoints that the issuer signed, of this pod, and with no others", async () => {
    const { rig } = await sessionWithServer(cleanups, TOKEN);
    for (let each = 0; each < 3; each += 1) await rig.post("/mcp/docs", call("echo"));
    await eventually("the records", () => rig.auditLines.length === 3);
    const { chain, hash } = auditRecord.parse(JSON.parse(rig.auditLines[2] ?? ""));
    const folder = await mkdtemp(join(tmpdir(), "drover-audit-"));
    cleanups.add(async () => await rm(folder, { recursive: true }));
    const file = async (name: string, text: string) => {
      await writeFile(join(folder, name), text);
      return join(folder, name);
    };
    const other = await generateSigningKey("key-0");
    const keys = await Promise.all(
      [other, rig.key].map((key) =>
        file(`${key.kid}.json`, JSON.stringify({ keys: [key.publicJwk] })),
      ),
    );
    const signedBy = async (key: SigningKey) =>
      await signCheckpoint(key, { podUid: POD, chain, seq: 3, hash, signedAt: 0 });
    // As redis-cli prints an entry of the stream.
    const entry = (signed: string) => `1700000000000-0\ncheckpoint\n${signed}\n`;
    const good = await file("good", entry(await signedBy(rig.key)));
    const forged = await file("forged", entry(await signedBy({ ...other, kid: rig.key.kid })));
    const by = (checkpoints: string, pod = POD) => [
      ...keys.flatMap((key) => ["--keys", key]),
      "--checkpoints",
      checkpoints,
      "--pod",
      pod,
    ];

    const whole = await verify(rig.auditLines, by(good));
    const wrong = await verify(rig.auditLines, by(forged));
    const strange = await verify(rig.auditLines, by(good, "pod-2"));

    expect(whole).toEqual({ code: 0, output: expect.stringMatching(/, 0 problems\n$/) });
    expect(wrong.code).toBe(1);
    expect(wrong.output).toContain("no good checkpoint, the first: line 3: it is not signed by");
    expect(strange.code).toBe(1);
    expect(strange.output).toContain("of another pod than was asked for");
    expect((await verify(rig.auditLines, ["--checkpoints", good])).code).toBe(2);
    expect((await verify(rig.auditLines, by(join(folder, "none")))).code).toBe(2);
  });

  it("does not look content without checkpoints, unless that is asked for", async () => {
    const { rig } = await sessionWithServer(cleanups, TOKEN);
    await rig.post("/mcp/docs", call("echo"));
    await eventually("the record", () => rig.auditLines.length === 1);

    const bare = await verify(rig.auditLines, []);

    expect(bare.code).toBe(1);
    expect(bare.output).toContain("0 problems\nno checkpoints were given");
    expect((await verify(rig.auditLines, ["--consistency-only"])).code).toBe(0);
  });
});
