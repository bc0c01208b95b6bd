import { writeFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { afterEach, describe, expect, it } from "@jest/globals";
import { AnthropicModel } from "../../../src/harness/anthropic-model.ts";
import type { SessionSnapshot } from "../../../src/protocol/snapshot.ts";
import { encodedForms } from "../../../src/proxy/redaction.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { AppError } from "../../../src/runtime/errors.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { everythingOf, Rig, startUpstream } from "./rig.ts";

const KEY = "CNRY-model-key-7Qz3vN0aYk2rT8";
const OWN_KEY = "CNRY-own-model-key-5Kd8sW";
const vaultWithModelKey: SessionSnapshot["vaults"][number] = {
  name: "team",
  uid: "uid",
  entries: [
    {
      name: "model",
      modelProvider: "anthropic",
      secretRef: { name: "own-model-key", key: "key" },
      header: "Authorization",
      scheme: "Bearer",
    },
  ],
};
const MESSAGES = "/model/v1/messages";
const body = { model: "m", max_tokens: 1, messages: [{ role: "user", content: "hello" }] };

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

describe("the model role", () => {
  it("adds the key and sends nothing else of the harness's headers", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response
        .writeHead(200, { "content-type": "application/json", "set-cookie": "a=b", server: "x" })
        .end('{"type":"message"}');
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });
    const token = await rig.token();

    const answer = await rig.post(`${MESSAGES}?beta=true`, body, {
      authorization: `Bearer ${token}`,
      "x-stainless-lang": "js",
      "x-forwarded-for": "1.2.3.4",
      "anthropic-version": "2023-06-01",
      "anthropic-beta": "interleaved-thinking-2025-05-14",
    });

    const [received] = upstream.received;
    expect(await answer.json()).toEqual({ type: "message" });
    expect(received?.url).toBe("/v1/messages?beta=true");
    expect(JSON.parse(received?.body ?? "")).toEqual(body);
    expect(received?.headers).toEqual({
      host: upstream.authority,
      connection: expect.any(String),
      accept: "application/json",
      "accept-encoding": "identity",
      "anthropic-beta": "interleaved-thinking-2025-05-14",
      "anthropic-version": "2023-06-01",
      "content-length": expect.any(String),
      "content-type": "application/json",
      "x-api-key": KEY,
    });
    expect(answer.headers.get("set-cookie")).toBeNull();
    expect(JSON.stringify(received)).not.toContain(token);
  });

  it("sends no key when none is configured", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url });

    await rig.post(MESSAGES, body);

    expect(upstream.received[0]?.headers).not.toHaveProperty("x-api-key");
  });

  it("fails, rather than ask without a key, when the configured key file is empty", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: "" });

    const answer = await rig.post(MESSAGES, body);

    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ error: { code: "CREDENTIAL_UNAVAILABLE" } });
    expect(upstream.received).toEqual([]);
  });

  it("takes a changed key up without a restart", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });
    await rig.post(MESSAGES, body);

    await writeFile(rig.modelKeyFile, "CNRY-rotated-model-key");
    const lastKey = () => upstream.received.at(-1)?.headers["x-api-key"];
    await eventually("the changed key is sent", async () => {
      await rig.post(MESSAGES, body);
      return lastKey() !== KEY;
    });

    expect(lastKey()).toBe("CNRY-rotated-model-key");
  });

  it("sends the session's own key in place of the pool's, and nothing when that cannot be read", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end(OWN_KEY));
    const options = {
      modelBaseUrl: upstream.url,
      modelApiKey: KEY,
      vaults: [vaultWithModelKey],
    };
    const secrets = { "team-a": { "own-model-key": { key: OWN_KEY } } };
    const rig = await Rig.start(cleanups, { ...options, secrets });
    const without = await Rig.start(cleanups, options);

    const answer = await rig.post(MESSAGES, body);
    const refused = await without.post(MESSAGES, body);

    expect(upstream.received.map(({ headers }) => headers["x-api-key"])).toEqual([OWN_KEY]);
    expect(await answer.text()).toBe("[redacted:team/model]");
    expect(await refused.json()).toMatchObject({ error: { code: "CREDENTIAL_NOT_FOUND" } });
  });

  it.each([
    ["does not answer", true, "the vault does not answer"],
    ["refuses it", false, "permission denied"],
  ])(
    "fails with the reason when the vault of the pool's key %s",
    async (_name, retryable, reason) => {
      const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
      const read = async () => {
        throw new AppError("CREDENTIAL_UNAVAILABLE", reason, { retryable });
      };
      const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, poolKey: { read } });

      const answer = await rig.post(MESSAGES, body);

      expect(answer.status).toBe(503);
      expect(await answer.json()).toMatchObject({
        error: { code: "CREDENTIAL_UNAVAILABLE", message: expect.stringContaining(reason) },
      });
      expect(upstream.received).toEqual([]);
    },
  );

  it("serves the harness's own client, which brings nothing that is refused", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response
        .writeHead(400, { "content-type": "application/json" })
        .end('{"type":"error","error":{"type":"invalid_request_error","message":"seen"}}');
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });
    const model = new AnthropicModel({ baseUrl: `${rig.url}/model`, clock: systemClock, fetch });
    const request = { model: "m", maxTokens: 1, system: undefined, tools: [], messages: [] };
    const call = {
      sessionToken: await rig.token(),
      signal: new AbortController().signal,
      onText() {},
    };

    await expect(model.stream(request, call)).rejects.toThrow("seen");
    expect(upstream.received).toHaveLength(1);
  });

  it("passes the first event on while the model is still writing", async () => {
    let finish = () => {};
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("event: message_start\ndata: {}\n\n");
      finish = () => response.end("event: message_stop\ndata: {}\n\n");
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    const answer = await rig.post(MESSAGES, { ...body, stream: true });
    const reader = answer.body?.getReader();
    const first = await reader?.read();

    expect(Buffer.from(first?.value ?? []).toString()).toBe("event: message_start\ndata: {}\n\n");
    finish();
    const second = await reader?.read();
    expect(Buffer.from(second?.value ?? []).toString()).toContain("message_stop");
    expect((await reader?.read())?.done).toBe(true);
  });

  it("passes the request's first bytes on before its last are written", async () => {
    let arrived = "";
    const upstream = await startUpstream(
      cleanups,
      (_received, response, incoming) => {
        incoming.on("data", (chunk: Buffer) => {
          arrived += chunk.toString();
        });
        incoming.on("end", () => response.end("{}"));
      },
      { readBody: false },
    );
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });
    const token = await rig.token();

    const outgoing = httpRequest(`${rig.url}${MESSAGES}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    });
    const status = new Promise<number | undefined>((resolve, reject) => {
      outgoing.once("response", (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      outgoing.once("error", reject);
    });
    outgoing.write('{"first":');
    await eventually("the first half's arrival", () => arrived === '{"first":');
    outgoing.end("1}");

    expect(await status).toBe(200);
    expect(arrived).toBe('{"first":1}');
  });

  it("leaves the model when the harness leaves", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("event: message_start\ndata: {}\n\n");
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });
    const token = await rig.token();
    const gone = new AbortController();

    const answer = await fetch(`${rig.url}${MESSAGES}`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
      signal: gone.signal,
    });
    await answer.body?.getReader().read();
    gone.abort();
    await eventually("the abort upstream", () => upstream.aborted === 1);

    expect(upstream.received).toHaveLength(1);
  });

  it("breaks the answer off when the model does, so that it is not taken for whole", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("event: message_start\ndata: {}\n\n", () => response.destroy());
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    const answer = await rig.post(MESSAGES, body);

    await expect(answer.text()).rejects.toBeDefined();
  });

  it.each([
    [429, "7"],
    [529, undefined],
    [500, undefined],
    [400, undefined],
  ])("passes an error %i of the model on with its retry-after", async (status, retryAfter) => {
    const error = { type: "error", error: { type: "overloaded_error", message: "later" } };
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response
        .writeHead(status, {
          "content-type": "application/json",
          ...(retryAfter === undefined ? {} : { "retry-after": retryAfter }),
        })
        .end(JSON.stringify(error));
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    const answer = await rig.post(MESSAGES, body);

    expect(answer.status).toBe(status);
    expect(answer.headers.get("retry-after")).toBe(retryAfter ?? null);
    expect(await answer.json()).toEqual(error);
  });

  it("follows no redirect, and the key stays home", async () => {
    const thief = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(307, { location: `${thief.url}/v1/messages` }).end();
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    const answer = await rig.post(MESSAGES, body);

    expect(answer.status).toBe(502);
    expect(await answer.json()).toMatchObject({
      type: "error",
      error: { code: "UPSTREAM_REFUSED", message: expect.stringContaining("redirect (307)") },
    });
    expect(thief.received).toEqual([]);
  });

  it("takes the key out of headers and bodies, whole or split at any byte", async () => {
    const echo = encodedForms(KEY).join(" | ");
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(401, {
        "content-type": "application/json",
        "request-id": `req ${KEY}`,
        "www-authenticate": KEY,
      });
      for (const byte of Buffer.from(echo)) response.write(Buffer.from([byte]));
      response.end();
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    const seen = await everythingOf(await rig.post(MESSAGES, body));

    expect(upstream.received[0]?.headers["x-api-key"]).toBe(KEY);
    for (const form of encodedForms(KEY)) expect(seen).not.toContain(form);
    expect(seen).toContain("[redacted:model-key]");
    expect(rig.logLines.join("")).not.toContain(KEY);
    expect(await rig.registry.metrics()).toMatch(/redactions_total\{role="model"\} [1-9]/);
  });

  it("refuses a compressed answer, which could hide the key", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(200, { "content-encoding": "gzip" }).end("x");
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    expect((await rig.post(MESSAGES, body)).status).toBe(502);
  });

  it.each([
    ["/model/v1/files", 404],
    ["/model/v1/messages/batches", 404],
    ["/model/v1/messages/../files", 404],
    ["/model/v1/messages%2f..%2ffiles", 404],
    ["/model/v1//messages", 404],
    ["/model/v1/messages?api_key=mine", 403],
    ["/model/v1/messages?limit=1", 400],
  ])("serves only messages and count_tokens: %s", async (path, status) => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

    expect((await rig.post(path, body)).status).toBe(status);
    expect(upstream.received).toEqual([]);
  });

  it.each(["files-api-2025-04-14", "mcp-client-2025-04-04", "code-execution-2025-05-22"])(
    "does not pass on the beta %s, which acts outside the session's hands",
    async (beta) => {
      const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
      const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });

      const answer = await rig.post(MESSAGES, body, { "anthropic-beta": beta });

      expect(answer.status).toBe(400);
      expect(upstream.received).toEqual([]);
    },
  );

  it("counts tokens", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const rig = await Rig.start(cleanups, {
      modelBaseUrl: `${upstream.url}/base/`,
      modelApiKey: KEY,
    });

    await rig.post("/model/v1/messages/count_tokens", body);

    expect(upstream.received[0]?.url).toBe("/base/v1/messages/count_tokens");
  });

  it("says that the model cannot be reached", async () => {
    const rig = await Rig.start(cleanups, { modelBaseUrl: "http://127.0.0.1:1", modelApiKey: KEY });

    const answer = await rig.post(MESSAGES, body);

    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ error: { code: "UNAVAILABLE" } });
  });

  it("refuses a request that declares more than 32 MiB before reading it", async () => {
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey: KEY });
    const token = await rig.token();

    const status = await new Promise((resolve, reject) => {
      const outgoing = httpRequest(`${rig.url}${MESSAGES}`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          authorization: `Bearer ${token}`,
          "content-length": 33 * 1024 * 1024,
        },
      });
      outgoing.once("response", (response) => {
        resolve(response.statusCode);
        outgoing.destroy();
      });
      outgoing.once("error", reject);
      outgoing.write("{");
    });

    expect(status).toBe(413);
    expect(upstream.received).toEqual([]);
  });
});
