import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { decodeJwt } from "jose";
import { sessionRepository } from "../../../src/api/agent-session.ts";
import type { SessionEvent } from "../../../src/protocol/session-event.ts";
import type { SessionRef } from "../../../src/sessions/session-log.ts";
import { FakeEdge } from "../../fakes/fake-edge.ts";
import { GitHost } from "../../servers/git-host.ts";
import { eventsOf, external, HarnessBed, type WorkerWrap } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";

/** Worker, daemon, git and git host are real; the edge between them only changes the credential. */

const SCRIPT = `
scenarios:
  read:
    turns:
      - tools: [{ name: bash, input: { command: "cat app/README.md; echo once >> count; cat count" } }]
      - { say: Read. }
      - tools: [{ name: bash, input: { command: "git -C app fetch && cat app/README.md && ls" } }]
      - { say: Read again. }
  push:
    turns:
      - tools:
          - name: bash
            input:
              command: "cd app && git switch -qc agent/work && echo new > new.txt && git add . && git commit -qm 'Add a file' && git push -q origin HEAD && echo pushed"
      - { say: Pushed. }
`;
const HOST_TOKEN = "CNRY-host-90af";
const APP = sessionRepository.parse({ name: "app", url: "https://git.example/team/app" });
const GONE = sessionRepository.parse({ name: "gone", url: "https://git.example/team/gone" });

let host: GitHost;
let edge: FakeEdge;
let rig: HarnessBed;

beforeEach(async () => {
  host = await GitHost.start();
  await host.addRepository("team/app", { token: HOST_TOKEN });
  edge = new FakeEdge({ app: { url: host.repositoryUrl("team/app"), token: HOST_TOKEN } });
  const edgeUrl = await edge.start();
  rig = new HarnessBed();
  rig.edge = { url: () => Promise.resolve(edgeUrl) };
  await rig.start(SCRIPT);
}, 30_000);

afterEach(async () => {
  await rig.stop();
  await edge.close();
  await host.close();
});

async function begin(scenario: string, repositories = [APP]): Promise<SessionRef> {
  return await rig.createSession("Go.", { model: `scripted:${scenario}` }, repositories);
}

const results = (events: SessionEvent[]) =>
  eventsOf(events, "tool.result").map(({ data }) => data.content);
const cloneErrors = (events: SessionEvent[]) =>
  eventsOf(events, "session.error").map(({ data }) => data);
/** Of the requests, those that fetch anything. */
const clones = () =>
  host.received.filter(({ bodyStart }) => bodyStart.toString("latin1").includes("command=fetch"));

describe("repositories of a session", () => {
  it("are in the sandbox before its first call runs", async () => {
    rig.startWorker();
    const ref = await begin("read");
    const events = await rig.idle(ref);

    expect(results(events)).toEqual(["# team/app\nonce"]);
    expect(cloneErrors(events)).toEqual([]);
    expectInvariants(events, await rig.requests());
  }, 30_000);

  it("are pushed to by plain git from the bash tool", async () => {
    rig.startWorker();
    const ref = await begin("push");
    const events = await rig.idle(ref);

    expect(results(events)).toEqual(["pushed"]);
    expect(await host.read("team/app", "show", "agent/work:new.txt")).toBe("new");
    expect(rig.file(ref, "app/.git/config")).not.toContain(HOST_TOKEN);
  }, 30_000);

  it("another worker gives the sandbox a token of its own and clones nothing again", async () => {
    const first = rig.startWorker();
    const ref = await begin("read");
    await rig.idle(ref);
    await first.stop();
    rig.startWorker();
    await rig.say(ref, "Again.");
    const events = await rig.idle(ref, 2);

    expect(results(events)[1]).toBe("# team/app\napp\ncount");
    const epochs = edge.shown.map((header) => decodeJwt(header.replace("Bearer ", ""))["epoch"]);
    expect(new Set(epochs).size).toBe(2);
    expect(clones()).toHaveLength(1);
    expectInvariants(events, await rig.requests());
  }, 30_000);

  it("a worker that dies while a clone runs: the next one joins it, and the call runs once", async () => {
    const open = Promise.withResolvers<void>();
    edge.gate = open.promise;
    let asked = 0;
    const counting: WorkerWrap = {
      sandboxClient: (client) => ({
        ...client,
        repositories: (...request) => {
          asked += 1;
          return client.repositories(...request);
        },
      }),
    };
    const first = rig.startWorker(counting);
    const ref = await begin("read");
    await rig.until(ref, "the clone", () => edge.shown.length > 0);
    await first.kill();
    const before = asked;
    rig.startWorker(counting);
    await rig.until(ref, "a takeover", () => asked > before);
    open.resolve();
    const events = await rig.idle(ref);

    expect(results(events)).toEqual(["# team/app\nonce"]);
    expect(clones()).toHaveLength(1);
    expectInvariants(events, await rig.requests());
  }, 30_000);

  it("the sandbox that follows a lost one has them too", async () => {
    rig.startWorker();
    const ref = await begin("read");
    await rig.idle(ref);
    await rig.daemons.get(`${ref.id}:1`)?.close();
    const lost = { hand: "sandbox", generation: 1, reason: "PodDeleted", message: "gone" };
    await rig.store.operator.emitEvents(ref, [external("sandbox.lost", lost)], {
      idempotencyKey: "lost",
    });
    await rig.say(ref, "Again.");
    const events = await rig.idle(ref, 2);

    expect(eventsOf(events, "sandbox.provisioned").map(({ data }) => data.generation)).toEqual([
      1, 2,
    ]);
    expect(results(events)[1]).toBe("# team/app\napp");
    expect(clones()).toHaveLength(2);
  }, 30_000);

  it("one that cannot be cloned is told to the model and the log, and the session goes on", async () => {
    rig.startWorker();
    const ref = await begin("read", [APP, GONE]);
    await rig.idle(ref);
    await rig.say(ref, "Again.");
    const events = await rig.idle(ref, 2);

    expect(results(events)[0]).toMatch(
      /^Repository "gone" could not be cloned into gone: .*not found.*\. It is tried again with a later call\.\n\n# team\/app\nonce$/,
    );
    expect(cloneErrors(events)).toEqual([
      expect.objectContaining({
        type: "repository_clone_error",
        retry_status: "retrying",
        repository_url: GONE.url,
      }),
    ]);
    expect(eventsOf(events, "session.status_idle").at(-1)?.data.stop_reason).toBe("end_turn");
    expectInvariants(events, await rig.requests());
  }, 30_000);

  it("an install without an edge says so, and tools work", async () => {
    rig.edge = undefined;
    rig.startWorker();
    const ref = await begin("read");
    const events = await rig.idle(ref);

    expect(results(events)[0]).toContain("the install has no edge (edge.enabled)");
    expect(results(events)[0]).toContain("once");
    expect(cloneErrors(events)).toHaveLength(1);
  }, 30_000);

  it("an interrupt ends the waiting for a clone; the call does not run", async () => {
    const open = Promise.withResolvers<void>();
    edge.gate = open.promise;
    rig.startWorker();
    const ref = await begin("read");
    await rig.until(ref, "the clone", () => edge.shown.length > 0);
    await rig.send(ref, "user.interrupt", {});
    const events = await rig.idle(ref);
    open.resolve();

    expect(eventsOf(events, "tool.result").map(({ data }) => data.outcome)).toEqual(["cancelled"]);
    expect(existsSync(join(rig.workspace(ref), "count"))).toBe(false);
  }, 30_000);
});
