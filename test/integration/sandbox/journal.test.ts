import { once } from "node:events";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { AUDIENCES, generateSigningKey } from "../../../src/protocol/tokens.ts";
import { eventually } from "../../eventually.ts";
import { claims, DaemonFixture, executeToken, type TokenOptions } from "../sandbox-fixture.ts";

let daemon: DaemonFixture;
beforeEach(async () => {
  daemon = new DaemonFixture();
  await daemon.start();
});
afterEach(() => daemon.remove());

const bash = (command: string) => ({ command, timeout_ms: 30_000 });

/** Sends a request as it stands; status and body. */
async function raw(path: string, init: RequestInit, token: TokenOptions | string = {}) {
  const bearer = typeof token === "string" ? token : await executeToken(token);
  const response = await fetch(`http://${daemon.address}${path}`, {
    ...init,
    headers: { "content-type": "application/json", authorization: `Bearer ${bearer}` },
  });
  const body = (await response.json()) as { error?: { code: string; message: string } };
  return { status: response.status, code: body.error?.code, body };
}

function post(body: unknown): RequestInit {
  return { method: "POST", body: JSON.stringify(body) };
}

function lines(name: string): number {
  const file = join(daemon.workspace, name);
  return existsSync(file) ? readFileSync(file, "utf8").split("\n").length - 1 : 0;
}

/** Sends a call and does not wait for its answer. */
function begin(id: string, command: string): void {
  void daemon
    .client()
    .execute(daemon.address, daemon.request("bash", bash(command), id))
    .catch(() => {});
}

describe("a repeated id", () => {
  it("joins the running call and gets the recorded result later", async () => {
    const input = bash("echo x >>runs; sleep 0.3; echo done");
    const both = await Promise.all([
      daemon.call("bash", input, "toolu_a"),
      daemon.call("bash", input, "toolu_a"),
    ]);
    const later = await daemon.call("bash", input, "toolu_a");

    expect(both[0]).toEqual({ content: "done", is_error: false, outcome: "known" });
    expect(both[1]).toEqual(both[0]);
    expect(later).toEqual(both[0]);
    expect(lines("runs")).toBe(1);
  });

  it("gets the recorded result after SIGKILL and restart", async () => {
    const input = bash("echo x >>runs; echo out; false");
    const first = await daemon.call("bash", input, "toolu_a");
    await daemon.kill("SIGKILL");
    await daemon.start();

    expect(await daemon.call("bash", input, "toolu_a")).toEqual(first);
    expect(lines("runs")).toBe(1);
  });

  it("with other input is refused, also after a restart", async () => {
    await daemon.call("bash", bash("echo a"), "toolu_a");
    await expect(daemon.call("bash", bash("echo b"), "toolu_a")).rejects.toMatchObject({
      code: "SANDBOX_INPUT_CHANGED",
    });
    await daemon.kill("SIGKILL");
    await daemon.start();

    await expect(daemon.call("bash", bash("echo b"), "toolu_a")).rejects.toMatchObject({
      code: "SANDBOX_INPUT_CHANGED",
    });
  });

  it("is not run again after it was acknowledged", async () => {
    await daemon.call("bash", bash("echo x >>runs"), "toolu_a");
    await daemon.client().ack(daemon.address, ["toolu_a", "toolu_never_seen"]);

    await expect(daemon.client().result(daemon.address, "toolu_a", 0)).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    await expect(daemon.call("bash", bash("echo x >>runs"), "toolu_a")).rejects.toMatchObject({
      code: "OUTCOME_UNKNOWN",
    });
    expect(lines("runs")).toBe(1);
  });
});

describe("SIGKILL in the middle of a call", () => {
  it("makes its outcome unknown, with what it had printed, and nothing runs on", async () => {
    const command =
      "echo x >>runs; echo printed; sleep 1; while true; do date >alive; sleep 0.1; done";
    begin("toolu_a", command);
    await eventually("the file of the command", () => existsSync(join(daemon.workspace, "alive")));
    await daemon.kill("SIGKILL");
    await daemon.start();

    const response = await daemon.client().result(daemon.address, "toolu_a", 0);

    expect(response).toMatchObject({
      state: "done",
      result: { outcome: "unknown", is_error: true },
    });
    expect(response.result?.content).toMatch(/may have had none, part or all of its effect/);
    expect(response.result?.content).toContain("The last it printed:\nprinted");
    expect(await daemon.call("bash", bash(command), "toolu_a")).toEqual(response.result);
    expect(lines("runs")).toBe(1);
    const gone = await daemon.bash("rm alive; sleep 0.5; test -e alive && echo alive || echo gone");
    expect(gone.content).toBe("gone");
  });

  it("leaves a call that waited for its turn unknown to the daemon, so that it may be sent again", async () => {
    begin("toolu_a", "touch started; sleep 30");
    await eventually("the start of the command", () =>
      existsSync(join(daemon.workspace, "started")),
    );
    begin("toolu_b", "echo b >>runs");
    await daemon.call("read", { file_path: "started" });
    await daemon.kill("SIGKILL");
    await daemon.start();

    await expect(daemon.client().result(daemon.address, "toolu_b", 0)).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    expect((await daemon.call("bash", bash("echo b >>runs"), "toolu_b")).outcome).toBe("known");
    expect(lines("runs")).toBe(1);
  });

  it("is survived by a journal whose last line is torn", async () => {
    await daemon.call("bash", bash("echo x >>runs"), "toolu_a");
    await daemon.kill("SIGKILL");
    appendFileSync(join(daemon.journal, "journal.jsonl"), '{"t":"done","id":"toolu_b","na');
    await daemon.start();

    await daemon.call("bash", bash("echo x >>runs"), "toolu_a");
    await daemon.call("bash", bash("echo x >>runs"), "toolu_b");
    await daemon.kill("SIGKILL");
    await daemon.start();
    await daemon.call("bash", bash("echo x >>runs"), "toolu_b");

    expect(lines("runs")).toBe(2);
  });
});

describe("a dropped connection", () => {
  it("cancels nothing: the result is there when asked for", async () => {
    const drop = AbortSignal.timeout(300);
    const request = daemon.request("bash", bash("sleep 1; echo x >>runs; echo out"), "toolu_a");
    await expect(daemon.client().execute(daemon.address, request, drop)).rejects.toMatchObject({
      name: "TimeoutError",
    });

    const response = await daemon.client().result(daemon.address, "toolu_a", 20_000);

    expect(response.result).toEqual({ content: "out", is_error: false, outcome: "known" });
    expect(lines("runs")).toBe(1);
  });
});

describe("cancel", () => {
  it("kills the command and records what it had printed", async () => {
    begin("toolu_a", "echo part; touch started; trap '' TERM; sleep 30; touch survived");
    await eventually("the start of the command", () =>
      existsSync(join(daemon.workspace, "started")),
    );

    const response = await daemon.client().cancel(daemon.address, "toolu_a");

    expect(response.result).toMatchObject({ is_error: true, outcome: "cancelled" });
    expect(response.result?.content).toMatch(/^part\n\(cancelled/);
    await daemon.kill("SIGKILL");
    await daemon.start();
    expect(await daemon.client().result(daemon.address, "toolu_a", 0)).toEqual(response);
    expect((await daemon.bash("echo next")).content).toBe("next");
  });

  it("of a finished call gives its result", async () => {
    const result = await daemon.call("bash", bash("echo out"), "toolu_a");

    const response = await daemon.client().cancel(daemon.address, "toolu_a");

    expect(response.result).toEqual(result);
  });

  it("of a call that waits for its turn keeps it from running", async () => {
    begin("toolu_a", "touch started; sleep 1");
    await eventually("the start of the command", () =>
      existsSync(join(daemon.workspace, "started")),
    );
    begin("toolu_b", "echo b >>runs");
    await daemon.call("read", { file_path: "started" });

    const response = await daemon.client().cancel(daemon.address, "toolu_b");

    expect(response.result?.outcome).toBe("cancelled");
    expect(lines("runs")).toBe(0);
  });

  it("of a call not seen yet keeps it from running, also after a restart", async () => {
    await daemon.client().cancel(daemon.address, "toolu_a");
    await daemon.kill("SIGKILL");
    await daemon.start();

    const result = await daemon.call("bash", bash("echo x >>runs"), "toolu_a");

    expect(result).toMatchObject({ outcome: "cancelled", is_error: true });
    expect(lines("runs")).toBe(0);
  });
});

describe("fencing", () => {
  it("refuses a new call of a superseded epoch, also after a restart, and nothing runs", async () => {
    const newer = { claims: { epoch: 5 } };
    await daemon.client(newer).tools(daemon.address);
    const stale = () =>
      daemon
        .client({ claims: { epoch: 4 } })
        .execute(daemon.address, daemon.request("bash", bash("echo x >>runs"), "toolu_a", 4));

    await expect(stale()).rejects.toMatchObject({ code: "SANDBOX_STALE_EPOCH" });
    await daemon.kill("SIGKILL");
    await daemon.start();
    await expect(stale()).rejects.toMatchObject({ code: "SANDBOX_STALE_EPOCH" });
    expect(lines("runs")).toBe(0);
  });

  it("gives a superseded epoch the results of calls that are known, and nothing else", async () => {
    const result = await daemon.call("bash", bash("echo out"), "toolu_a");
    await daemon.client({ claims: { epoch: 2 } }).tools(daemon.address);

    expect(await daemon.call("bash", bash("echo out"), "toolu_a")).toEqual(result);
    await expect(daemon.client().cancel(daemon.address, "toolu_a")).rejects.toMatchObject({
      code: "SANDBOX_STALE_EPOCH",
    });
    await expect(daemon.client().ack(daemon.address, ["toolu_a"])).rejects.toMatchObject({
      code: "SANDBOX_STALE_EPOCH",
    });
  });

  it("lets the next worker take over a running call", async () => {
    begin("toolu_a", "echo x >>runs; sleep 1; echo out");
    await eventually("one run", () => lines("runs") === 1);

    const response = await daemon
      .client({ claims: { epoch: 2 } })
      .execute(
        daemon.address,
        daemon.request("bash", bash("echo x >>runs; sleep 1; echo out"), "toolu_a", 2),
      );

    expect(response.result?.content).toBe("out");
    expect(lines("runs")).toBe(1);
  });
});

describe("who may call", () => {
  it.each([
    { name: "another session", other: { sub: "sesn_2" } },
    { name: "another tenant", other: { ten: "other" } },
    { name: "another hand", other: { hand: "second" } },
    { name: "another generation", other: { gen: 2 } },
  ])("$name is refused once the daemon is bound, also after a restart", async ({ other }) => {
    await daemon.bash("echo bound");

    await expect(daemon.client({ claims: other }).tools(daemon.address)).rejects.toMatchObject({
      code: "SANDBOX_BOUND",
    });
    await daemon.kill("SIGKILL");
    await daemon.start();
    await expect(daemon.client({ claims: other }).tools(daemon.address)).rejects.toMatchObject({
      code: "SANDBOX_BOUND",
    });
    expect((await daemon.bash("echo still")).content).toBe("still");
  });

  it("a token for another sandbox is refused and binds nothing", async () => {
    const other = { claims: { sbx: "sbx-other", sub: "sesn_2" } };
    expect(await raw("/v1/tools", {}, other)).toMatchObject({ status: 403, code: "FORBIDDEN" });

    expect((await daemon.bash("echo mine")).content).toBe("mine");
  });

  it.each([
    { name: "for another audience", options: { audience: AUDIENCES.session } },
    { name: "that has expired", options: { nowMs: Date.now() - 3_600_000 } },
    { name: "without a session", options: { claims: { sub: undefined as unknown as string } } },
  ])("a token $name is refused and binds nothing", async ({ options }) => {
    expect(await raw("/v1/tools", {}, options)).toMatchObject({ status: 401 });

    expect((await daemon.bash("echo mine")).content).toBe("mine");
  });

  it("a token signed by another key under the same name is refused", async () => {
    const key = await generateSigningKey("test");

    expect(await raw("/v1/tools", {}, { key })).toMatchObject({
      status: 401,
      code: "UNAUTHENTICATED",
    });
  });

  it.each([
    ["no token", ""],
    ["garbage", "x.y.z"],
    [
      "an unsigned token",
      `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString("base64url")}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.`,
    ],
  ])("%s is refused", async (_name, token) => {
    expect(await raw("/v1/tools", {}, token)).toMatchObject({
      status: 401,
      code: "UNAUTHENTICATED",
    });
  });

  it("a request whose epoch is not its token's is refused", async () => {
    const request = daemon.request("bash", bash("echo x >>runs"), "toolu_a", 9);

    expect(await raw("/v1/execute", post(request))).toMatchObject({ status: 403 });
    expect(lines("runs")).toBe(0);
  });

  it.each([
    { name: "a wrong hash", change: { inputHash: "0".repeat(64) }, message: "inputHash" },
    { name: "no name", change: { name: "" }, message: "body.name" },
    { name: "an input that is a list", change: { input: [] }, message: "body.input" },
    { name: "an id that is too long", change: { id: "x".repeat(300) }, message: "body.id" },
  ])("a request with $name is refused, field named", async ({ change, message }) => {
    const request = { ...daemon.request("bash", bash("echo x >>runs")), ...change };

    const answer = await raw("/v1/execute", post(request));

    expect(answer).toMatchObject({ status: 400, code: "INPUT_INVALID" });
    expect(answer.body.error?.message).toContain(message);
    expect(lines("runs")).toBe(0);
  });

  it("a body above the limit is refused before it is sent", async () => {
    const authorization = `Bearer ${await executeToken({})}`;
    const headers = {
      "content-type": "application/json",
      "content-length": 17 * 1024 * 1024,
      authorization,
    };

    // Only the headers: the answer comes first, and a body under way would meet a closed connection.
    const sent = httpRequest(`http://${daemon.address}/v1/execute`, { method: "POST", headers });
    sent.flushHeaders();
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    sent.on("error", () => {});
    sent.destroy();

    expect(response.statusCode).toBe(413);
  });

  it("a body without a token is refused before it is read", async () => {
    const headers = { "content-type": "application/json", "content-length": 16 * 1024 * 1024 };
    const sent = httpRequest(`http://${daemon.address}/v1/execute`, { method: "POST", headers });
    sent.flushHeaders();
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    sent.on("error", () => {});
    sent.destroy();

    expect(response.statusCode).toBe(401);
  });

  it("health and metrics need no token", async () => {
    await daemon.bash("echo x");

    const health = await fetch(`http://${daemon.address}/healthz`);
    const metrics = await (await fetch(`http://${daemon.address}/metrics`)).text();

    expect(health.status).toBe(200);
    expect(metrics).toContain('drover_sandbox_calls_total{tool="bash",outcome="ok"} 1');
    expect(metrics).toContain('drover_build_info{process="sandbox"');
  });
});

describe("the end of the daemon", () => {
  it.each(["SIGTERM", "parent"])(
    "%s: kills what runs, records it, answers who waits, exits 0",
    async (how) => {
      const waiting = daemon.call("bash", bash("echo part; touch started; sleep 30"), "toolu_a");
      await eventually("the start of the command", () =>
        existsSync(join(daemon.workspace, "started")),
      );
      if (how === "parent") daemon.child?.stdin?.end();
      const exited =
        how === "parent"
          ? new Promise((resolve) => daemon.child?.once("exit", resolve))
          : daemon.kill("SIGTERM");

      const result = await waiting;

      expect(result).toMatchObject({ is_error: true, outcome: "unknown" });
      expect(result.content).toMatch(/^part\n\(the sandbox was stopped/);
      expect(await exited).toBe(0);
      await daemon.start();
      expect((await daemon.client().result(daemon.address, "toolu_a", 0)).result).toEqual(result);
    },
  );

  it("an address where nothing listens is UNAVAILABLE and nothing was sent", async () => {
    await daemon.kill("SIGKILL");

    await expect(daemon.bash("echo x")).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
      details: { sent: false },
    });
  });
});
