import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AgentSpec, agentSpec } from "../../src/api/agent.ts";
import type { SessionRepository } from "../../src/api/agent-session.ts";
import { AnthropicModel } from "../../src/harness/anthropic-model.ts";
import type { EdgeLocator } from "../../src/harness/edge-address.ts";
import { type McpHands, SidecarMcpHands } from "../../src/harness/mcp-hands.ts";
import { createHarnessMetrics } from "../../src/harness/metrics.ts";
import type { Model } from "../../src/harness/model.ts";
import { parseEvent } from "../../src/harness/stored-events.ts";
import type { SessionTokens, TokenSource } from "../../src/harness/tokens.ts";
import { createWorker, type Worker, type WorkerOptions } from "../../src/harness/worker.ts";
import { createSandboxClient, type SandboxClient } from "../../src/protocol/sandbox-client.ts";
import type {
  Json,
  SessionEvent,
  SessionEventData,
  SessionEventType,
} from "../../src/protocol/session-event.ts";
import {
  AUDIENCES,
  generateSigningKey,
  type SigningKey,
  signToken,
} from "../../src/protocol/tokens.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { HttpServer } from "../../src/runtime/http.ts";
import { createLogger, silentLogger } from "../../src/runtime/logger.ts";
import { createRegistry, type Registry } from "../../src/runtime/metrics.ts";
import { type ProcessMemory, systemMemory } from "../../src/runtime/process-memory.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { sandboxConfig } from "../../src/sandbox/config.ts";
import { type SandboxDaemon, startSandboxDaemon } from "../../src/sandbox/daemon.ts";
import type { RequestRecord } from "../../src/scripted-model/request-log.ts";
import { parseScripts } from "../../src/scripted-model/script.ts";
import { createScriptedModel } from "../../src/scripted-model/server.ts";
import { createMemorySessionStore } from "../../src/sessions/memory/memory-session-store.ts";
import type { SessionRef, SessionStore, WakeQueue } from "../../src/sessions/session-log.ts";
import { newRef } from "../builders/sessions.ts";
import { aSnapshot } from "../builders/snapshot.ts";
import { inProcessRunner } from "./sandbox/in-process-runner.ts";

/** Short, so that takeovers do not make the tests slow. */
export const TIMINGS = { ttlMs: 400, renewMs: 80, pollMs: 20 };
const logger =
  process.env["DROVER_TEST_LOG"] === undefined
    ? silentLogger
    : createLogger({ level: "debug", process: "test", destination: process.stderr });

export interface RunningWorker {
  worker: Worker;
  registry: Registry;
  /** As SIGTERM does: resolves when the worker is done. */
  stop(): Promise<void>;
  /** Its leases run out; what it still does is refused. */
  kill(): Promise<void>;
}

export interface WorkerWrap {
  queue?: (queue: WakeQueue) => WakeQueue;
  sandboxClient?: (client: SandboxClient) => SandboxClient;
  mcp?: (tokens: SessionTokens) => McpHands;
  memory?: ProcessMemory;
  options?: Partial<WorkerOptions>;
  model?: Model;
  modelTimeouts?: { firstByteMs: number; stallMs: number };
  /** A dead worker is not waited for. */
  isDead?: () => boolean;
}

/**
 * A harness with real parts around it: a scripted model and sandbox daemons over HTTP, and a store, in
 * memory if no other is given. What an operator does is a loop here that starts a daemon for each request.
 */
export class HarnessBed {
  readonly store: SessionStore;
  readonly root = mkdtempSync(join(tmpdir(), "drover-harness-"));
  readonly daemons = new Map<string, SandboxDaemon>();
  modelUrl = "";
  /** Where sandboxes reach their repositories; none when undefined. */
  edge: EdgeLocator | undefined;
  /** Set to refuse sandboxes as an operator does that cannot start them. */
  sandboxTrouble: { reason: string; message: string } | undefined;
  readonly #stopped = new AbortController();
  readonly #running: RunningWorker[] = [];
  #model: HttpServer | undefined;
  #key: SigningKey | undefined;
  #operator: Promise<void> = Promise.resolve();
  #workers = 0;

  constructor(
    store: SessionStore = createMemorySessionStore({
      clock: systemClock,
      rng: systemRng,
      timings: TIMINGS,
    }),
  ) {
    this.store = store;
  }

  async start(script: string): Promise<void> {
    this.#key = await generateSigningKey("test");
    this.#model = createScriptedModel({
      script: parseScripts([{ name: "test.yaml", text: script }]),
      clock: systemClock,
      logger,
      registry: createRegistry("scripted-model", "test"),
    });
    this.modelUrl = await this.#model.listen({ host: "127.0.0.1", port: 0 });
    this.#operator = this.#provide();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#running.map((running) => running.stop()));
    await this.#operator;
    await Promise.all([...this.daemons.values()].map((daemon) => daemon.close()));
    await this.#model?.close();
    await this.store.close();
    rmSync(this.root, { recursive: true, force: true });
  }

  async createSession(
    text: string,
    agent: Partial<AgentSpec> & { model: string },
    repositories: SessionRepository[] = [],
  ): Promise<SessionRef> {
    const ref = newRef();
    const spec = agentSpec.parse({ tools: [{ type: "agent_toolset_20260401" }], ...agent });
    const snapshot = aSnapshot({
      sessionId: ref.id,
      tenant: ref.tenant,
      agent: { ...spec, name: "coder", revision: "r1" },
      repositories,
    });
    const created = { agent: "coder", agentRevision: "r1" };
    const events = [
      external("session.created", created),
      external("user.message", { content: [{ type: "text", text }] }),
    ];
    await this.store.log.createSession({ ...ref, snapshot, events, source: "manifest" });
    return ref;
  }

  async send<T extends SessionEventType>(
    ref: SessionRef,
    type: T,
    data: SessionEventData<T>,
  ): Promise<void> {
    const event = external(type, data);
    await this.store.log.emitEvents(ref, [event], { idempotencyKey: event.id });
  }

  async say(ref: SessionRef, text: string): Promise<void> {
    await this.send(ref, "user.message", { content: [{ type: "text", text }] });
  }

  startWorker(wrap: WorkerWrap = {}): RunningWorker {
    this.#workers += 1;
    const registry = createRegistry("harness", "test");
    const queue = this.store.queue(`worker-${this.#workers}`);
    const worker = createWorker({
      queue: wrap.queue?.(queue) ?? queue,
      model:
        wrap.model ??
        new AnthropicModel({
          baseUrl: this.modelUrl,
          clock: systemClock,
          fetch,
          ...(wrap.modelTimeouts === undefined ? {} : { timeouts: wrap.modelTimeouts }),
        }),
      tokens: this.#tokens(),
      sandboxClient: (token) => {
        const client = createSandboxClient({ fetch, clock: systemClock, logger, token });
        return wrap.sandboxClient?.(client) ?? client;
      },
      edge: this.edge,
      mcp: (tokens) =>
        wrap.mcp?.(tokens) ??
        new SidecarMcpHands({
          sidecarUrl: this.modelUrl,
          tokens,
          fetch,
          clock: systemClock,
          logger,
        }),
      memory: wrap.memory ?? systemMemory,
      clock: systemClock,
      rng: systemRng,
      logger: logger.child({ worker: this.#workers }),
      metrics: createHarnessMetrics(registry),
      options: { graceMs: 5000, ...wrap.options },
    });
    const controller = new AbortController();
    const done = worker.run(controller.signal);
    const running: RunningWorker = {
      worker,
      registry,
      kill: () => queue.close(),
      stop: async () => {
        controller.abort();
        if (wrap.isDead?.() !== true) await done;
        await queue.close();
      },
    };
    this.#running.push(running);
    return running;
  }

  async events(ref: SessionRef): Promise<SessionEvent[]> {
    const events: SessionEvent[] = [];
    for await (const stored of this.store.log.getEvents(ref)) {
      const event = parseEvent(stored);
      if (event !== undefined) events.push(event);
    }
    return events;
  }

  /** Waits until the log satisfies `condition` and returns it. */
  async until(
    ref: SessionRef,
    what: string,
    condition: (events: SessionEvent[]) => boolean | Promise<boolean>,
    deadlineMs = 20_000,
  ): Promise<SessionEvent[]> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const events = await this.events(ref);
      if (await condition(events)) return events;
      if (performance.now() > end) {
        throw new Error(`not seen: ${what}\n${describe(events)}`);
      }
      await systemClock.sleep(15);
    }
  }

  /** Waits for the `count`th status_idle. */
  async idle(ref: SessionRef, count = 1): Promise<SessionEvent[]> {
    return await this.until(
      ref,
      `idle ${count}`,
      (events) => events.filter((event) => event.type === "session.status_idle").length >= count,
    );
  }

  async requests(): Promise<RequestRecord[]> {
    const response = await fetch(`${this.modelUrl}/requests`);
    const body = JSON.parse(await response.text()) as { requests: RequestRecord[] };
    return body.requests;
  }

  async plan(scenario: string, faults: object[]): Promise<void> {
    await fetch(`${this.modelUrl}/faults`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ scenario, faults }),
    });
  }

  workspace(ref: SessionRef, generation = 1): string {
    return join(this.root, ref.id, String(generation), "workspace");
  }

  file(ref: SessionRef, name: string, generation = 1): string {
    return readFileSync(join(this.workspace(ref, generation), name), "utf8");
  }

  async metric(running: RunningWorker, line: string): Promise<number> {
    const text = await running.registry.metrics();
    const found = text.split("\n").find((candidate) => candidate.startsWith(`${line} `));
    return Number(found?.split(" ").at(-1));
  }

  async #provide(): Promise<void> {
    const signal = this.#stopped.signal;
    for await (const request of this.store.operator.requests(signal)) {
      const { ref, hand, generation, requestId, kind } = request;
      const key = `${ref.id}:${generation}`;
      if (kind === "provision") {
        const answer = await this.#answer(ref, hand, generation, key);
        await this.store.operator.emitEvents(ref, [answer], { idempotencyKey: requestId });
      }
      await this.store.operator.answered(request);
    }
  }

  async #answer(ref: SessionRef, hand: string, generation: number, key: string) {
    if (this.sandboxTrouble !== undefined) {
      return external("sandbox.lost", { hand, generation, ...this.sandboxTrouble });
    }
    const folder = join(this.root, ref.id, String(generation));
    const config = sandboxConfig.parse({
      publicKeys: JSON.stringify({ keys: [this.#key?.publicJwk] }),
      sandboxId: key,
      port: 0,
      host: "127.0.0.1",
      workspace: join(folder, "workspace"),
      journalDir: join(folder, "journal"),
      path: process.env["PATH"],
    });
    const registry = createRegistry("sandbox", "test");
    const daemon = await startSandboxDaemon({
      config,
      runner: inProcessRunner(config, logger),
      clock: systemClock,
      logger,
      registry,
    });
    this.daemons.set(key, daemon);
    const address = `127.0.0.1:${daemon.port}`;
    return external("sandbox.provisioned", { hand, generation, sandboxId: key, address });
  }

  /** What sidecar and issuer do together. */
  #tokens(): TokenSource {
    return {
      requestTokens: async ({ sessionId, tenant, leaseToken, sandbox }) => {
        const key = this.#key;
        if (key === undefined) throw new Error("not started");
        const epoch = Number(leaseToken.split(".")[0]);
        const gen = Number(sandbox?.id.split(":")[1] ?? 1);
        const claims = {
          sub: sessionId,
          ten: tenant,
          hand: "sandbox",
          gen,
          sbx: sandbox?.id,
          epoch,
        };
        const times = { nowMs: Date.now(), lifeSeconds: 600 };
        const executeToken = await signToken(key, AUDIENCES.execute, claims, times);
        const sandboxToken = await signToken(key, AUDIENCES.sandbox, claims, times);
        const expiresAt = Date.now() + 600_000;
        return { sessionToken: "session-token", executeToken, sandboxToken, expiresAt };
      },
    };
  }
}

export function external<T extends SessionEventType>(type: T, data: SessionEventData<T>) {
  return { id: systemRng.id("sevt"), type, data: data as Json };
}

/**
 * For people: one line an event. Scripts outside this repository print a log with it.
 *
 * @public
 */
export function describe(events: SessionEvent[]): string {
  return events
    .map(
      (event) =>
        `${event.seq} e${event.epoch} ${event.type} ${JSON.stringify(event.data).slice(0, 200)}`,
    )
    .join("\n");
}

export function typesOf(events: SessionEvent[]): string[] {
  return events.map((event) => event.type);
}

export function eventsOf<T extends SessionEventType>(events: SessionEvent[], type: T) {
  return events.filter((event): event is Extract<SessionEvent, { type: T }> => event.type === type);
}
