import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { newRef, newSession } from "../../test/builders/sessions.ts";
import { aSnapshot } from "../../test/builders/snapshot.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { sessionRepository } from "../api/agent-session.ts";
import type { RepositoriesRequest, RepositoriesResponse } from "../protocol/sandbox-api.ts";
import { AUDIENCES, generateSigningKey, signToken } from "../protocol/tokens.ts";
import { AppError } from "../runtime/errors.ts";
import { silentLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { createMemorySessionStore } from "../sessions/memory/memory-session-store.ts";
import type { Lease } from "../sessions/session-log.ts";
import { Journal } from "./journal.ts";
import { createHarnessMetrics } from "./metrics.ts";
import { newEvent } from "./run-context.ts";
import { SandboxRepositories, type SandboxRepositoriesDeps } from "./sandbox-repositories.ts";
import type { LiveSandbox } from "./session-state.ts";

const clock = new FakeClock();
const rng = createSeededRng();
const APP = sessionRepository.parse({ name: "app", url: "https://git.example/t/app" });
const DOCS = sessionRepository.parse({
  name: "docs",
  url: "https://git.example/t/docs",
  path: "src/docs",
  branch: "main",
});
const never = new AbortController().signal;
let stop: AbortController;

beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => stop.abort());

type States = RepositoriesResponse["repositories"];
const READY: States = [APP, DOCS].map(({ name }) => ({ name, state: "ready" }));
const FAILED: States = [
  { name: "app", state: "failed", message: "fatal: repository not found." },
  { name: "docs", state: "ready" },
];

/** A log with one live sandbox; `answer` is what its daemon says. */
async function rig(changes: Partial<SandboxRepositoriesDeps> = {}) {
  const store = createMemorySessionStore({ clock, rng });
  const ref = newRef();
  await store.log.createSession(newSession(ref));
  const lease = await claim(store.queue("w").claim({ capacity: () => 1, signal: stop.signal }));
  for await (const _ of lease.getEvents());
  const journal = new Journal({ lease, clock });
  await journal.load();
  const where = { hand: "sandbox", generation: 1 };
  await journal.append([
    newEvent(rng, "sandbox.requested", { ...where, template: "t" }),
    newEvent(rng, "sandbox.provisioned", { ...where, sandboxId: "sbx", address: "sandbox:1" }),
  ]);
  const sandbox = journal.state.sandboxes.get("sandbox")?.[0];
  if (sandbox?.provisioned === undefined) throw new Error("no sandbox");
  const live: LiveSandbox = { ...sandbox, provisioned: sandbox.provisioned };
  const key = await generateSigningKey("test");
  const rigged = {
    asked: [] as RepositoriesRequest[],
    answer: (): States => READY,
    /** Answers wait for it. */
    gate: Promise.resolve(),
    live,
    errors: () =>
      journal.state.events.flatMap((event) => (event.type === "session.error" ? [event.data] : [])),
    hold: () =>
      new SandboxRepositories({
        lease,
        journal,
        snapshot: aSnapshot({ repositories: [APP, DOCS] }),
        clock,
        rng,
        logger: silentLogger,
        metrics: createHarnessMetrics(createRegistry("harness", "test")),
        signals: { dead: stop.signal, leave: stop.signal, hard: stop.signal },
        tokens: {
          sandbox: () =>
            signToken(key, AUDIENCES.sandbox, {}, { nowMs: clock.now(), lifeSeconds: 86_400 }),
        },
        client: {
          repositories: async (_address, request) => {
            rigged.asked.push(request);
            await rigged.gate;
            return rigged.answer();
          },
        },
        edge: { url: () => Promise.resolve("http://10.0.0.9:7080") },
        ...changes,
      }),
  };
  return rigged;
}

async function claim(leases: AsyncIterable<Lease>): Promise<Lease> {
  for await (const lease of leases) return lease;
  throw new Error("nothing to claim");
}

describe("a sandbox with repositories", () => {
  it("is given them once, with the edge's address and a folder for each", async () => {
    const { hold, live, asked } = await rig();
    const repositories = hold();
    await repositories.prepare(live, never);
    await repositories.prepare(live, never);

    expect(asked).toHaveLength(1);
    expect(asked[0]).toMatchObject({
      edgeUrl: "http://10.0.0.9:7080",
      repositories: [
        { name: "app", url: APP.url, path: "app" },
        { name: "docs", url: DOCS.url, path: "src/docs", branch: "main" },
      ],
    });
    expect(repositories.takeNotices(live)).toBe("");
  });

  it("gets a new token before half of the old one's life is over, and not long before", async () => {
    const { hold, live, asked } = await rig();
    const repositories = hold();
    await repositories.prepare(live, never);
    clock.jump(11 * 3_600_000);
    await repositories.prepare(live, never);
    expect(asked).toHaveLength(1);

    clock.jump(3_600_000);
    await repositories.prepare(live, never);
    expect(asked).toHaveLength(2);
    expect(asked[1]?.sandboxToken).not.toBe(asked[0]?.sandboxToken);
  });

  it("at another address is another daemon, which is told anew", async () => {
    const { hold, live, asked } = await rig();
    const repositories = hold();
    await repositories.prepare(live, never);
    const provisioned = { ...live.provisioned, address: "sandbox:2" };
    await repositories.prepare({ ...live, provisioned }, never);

    expect(asked).toHaveLength(2);
  });

  it("an agent without repositories costs no call", async () => {
    const { hold, live, asked } = await rig({ snapshot: aSnapshot() });
    await hold().prepare(live, never);

    expect(asked).toEqual([]);
  });
});

describe("a repository that cannot be cloned", () => {
  it("is told to the model once and to the log once, by whoever holds the session", async () => {
    const rigged = await rig();
    rigged.answer = () => FAILED;
    const open = Promise.withResolvers<void>();
    rigged.gate = open.promise;
    const first = rigged.hold();
    const both = Promise.all([1, 2].map(() => first.prepare(rigged.live, never)));
    while (rigged.asked.length < 2) await clock.settle();
    open.resolve();
    await both;

    expect(first.takeNotices(rigged.live)).toBe(
      'Repository "app" could not be cloned into app: fatal: repository not found. It is tried again with a later call.\n',
    );
    expect(first.takeNotices(rigged.live)).toBe("");
    const second = rigged.hold();
    await second.prepare(rigged.live, never);
    // A new hold has tried again, so its model hears how it went.
    expect(second.takeNotices(rigged.live)).toContain('Repository "app"');
    expect(rigged.errors()).toEqual([
      {
        type: "repository_clone_error",
        message:
          'repository "app" (https://git.example/t/app) could not be cloned: fatal: repository not found',
        retry_status: "retrying",
        repository_url: "https://git.example/t/app",
      },
    ]);
  });

  it("is tried again after five minutes, and the model hears that it is there", async () => {
    const rigged = await rig();
    rigged.answer = () => FAILED;
    const repositories = rigged.hold();
    await repositories.prepare(rigged.live, never);
    repositories.takeNotices(rigged.live);
    rigged.answer = () => READY;
    clock.jump(299_000);
    await repositories.prepare(rigged.live, never);
    expect(repositories.takeNotices(rigged.live)).toBe("");

    clock.jump(1000);
    await repositories.prepare(rigged.live, never);
    expect(repositories.takeNotices(rigged.live)).toBe('Repository "app" is in app now.\n');
    expect(rigged.asked).toHaveLength(2);
  });

  it.each([
    { what: "no edge", changes: { edge: undefined }, says: "the install has no edge" },
    {
      what: "an edge without an address",
      changes: {
        edge: { url: () => Promise.reject(new AppError("UNAVAILABLE", "no address (ENOTFOUND)")) },
      },
      says: "no address (ENOTFOUND)",
    },
    {
      what: "a daemon that knows no repositories",
      changes: {
        client: {
          repositories: () => Promise.reject(new AppError("NOT_FOUND", "there is no such route")),
        },
      },
      says: "there is no such route",
    },
  ])("$what leaves the sandbox usable and says why", async ({ changes, says }) => {
    const { hold, live, errors } = await rig(changes);
    const repositories = hold();
    await repositories.prepare(live, never);

    expect(repositories.takeNotices(live).split("\n").filter(Boolean)).toHaveLength(2);
    expect(errors().map(({ message }) => message)).toEqual([
      expect.stringContaining(says),
      expect.stringContaining(says),
    ]);
  });

  it.each(["UNAVAILABLE", "SESSION_LEASE_LOST"] as const)(
    "%s says nothing of repositories: the caller hears it, and nothing counts as done",
    async (code) => {
      const rigged = await rig();
      rigged.answer = () => {
        throw new AppError(code, "no");
      };
      const repositories = rigged.hold();
      await expect(repositories.prepare(rigged.live, never)).rejects.toMatchObject({ code });
      rigged.answer = () => READY;
      await repositories.prepare(rigged.live, never);

      expect(rigged.asked).toHaveLength(2);
      expect(rigged.errors()).toEqual([]);
    },
  );
});
