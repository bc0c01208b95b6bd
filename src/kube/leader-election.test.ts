import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { aborted } from "../runtime/abort.ts";
import { codeOf, describeError } from "../runtime/errors.ts";
import { createLogger, silentLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import { KubeError } from "./errors.ts";
import { LeaderElector } from "./leader-election.ts";
import { createKubeMetrics } from "./metrics.ts";
import { leases } from "./resources.ts";

const lease = { namespace: "drover", name: "operator" };
const unreachable = new KubeError("cut", { status: 0, reason: "Unreachable" });

interface Replica {
  elector: LeaderElector;
  /** Wall-clock-free record of what the replica did. */
  history: string[];
  stop: AbortController;
  over: Promise<void>;
  leads: () => boolean;
  metric: () => Promise<number | undefined>;
  /** Level and message of each line of the log. */
  told: () => string[];
}

function replica(kube: FakeKube, clock: FakeClock, identity: string): Replica {
  const registry = new Registry();
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "info",
    process: "test",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const elector = new LeaderElector({
    client: kube,
    clock,
    rng: createSeededRng(identity.length),
    logger,
    metrics: createKubeMetrics(registry),
    lease,
    identity,
  });
  const history: string[] = [];
  const stop = new AbortController();
  let leads = false;
  const work = async (signal: AbortSignal) => {
    leads = true;
    history.push("lead");
    await aborted(signal);
    history.push(codeOf(signal.reason) ?? "stopped");
    leads = false;
  };
  const over = elector.lead(stop.signal, work).then(
    () => void history.push("returned"),
    (error: unknown) => void history.push(`threw: ${describeError(error)}`),
  );
  const metric = async () => {
    const found = await registry.getSingleMetric("leader_election_master_status")?.get();
    return found?.values[0]?.value;
  };
  const told = () => lines.map(({ level, msg }) => `${String(level)}: ${String(msg)}`);
  return { elector, history, stop, over, leads: () => leads, metric, told };
}

function start() {
  const clock = new FakeClock();
  const kube = new FakeKube({ clock });
  return { clock, kube, holder: () => kube.peek(leases, lease)?.spec?.holderIdentity };
}

describe("LeaderElector", () => {
  it("the first takes the lease and keeps it while it renews; the second waits", async () => {
    const { clock, kube, holder } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    const b = replica(kube, clock, "bb");
    await clock.advance(600_000);

    expect([a.leads(), b.leads()]).toEqual([true, false]);
    expect([await a.metric(), await b.metric()]).toEqual([1, 0]);
    expect(holder()).toBe("a");
    expect(kube.peek(leases, lease)?.spec).toMatchObject({
      leaseDurationSeconds: 15,
      leaseTransitions: 0,
    });
  });

  it("two that start at once never lead together", async () => {
    const { clock, kube } = start();
    const replicas = ["a", "bb", "ccc"].map((identity) => replica(kube, clock, identity));
    for (let n = 0; n < 100; n += 1) {
      await clock.advance(700);
      expect(replicas.filter((one) => one.leads())).toHaveLength(1);
    }
  });

  it("a stop releases the lease, and the next leads within a retry period", async () => {
    const { clock, kube, holder } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    const b = replica(kube, clock, "bb");
    await clock.advance(5_000);
    a.stop.abort();
    await clock.settle();
    expect(a.history).toEqual(["lead", "stopped", "returned"]);
    expect(holder()).toBe("");
    await clock.advance(2_500);

    expect(b.leads()).toBe(true);
    expect(kube.peek(leases, lease)?.spec?.leaseTransitions).toBe(1);
  });

  it("a leader that dies is followed only when its lease has run out by the follower's clock", async () => {
    const { clock, kube } = start();
    kube.seed(leases, {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { ...lease },
      // Long past by its own words; they do not count.
      spec: {
        holderIdentity: "dead",
        leaseDurationSeconds: 15,
        renewTime: "2001-01-01T00:00:00.000000Z",
      },
    });
    const b = replica(kube, clock, "bb");
    await clock.advance(14_900);
    expect(b.leads()).toBe(false);
    await clock.advance(5_000);

    expect(b.leads()).toBe(true);
  });

  it("a leader that cannot renew stops after the deadline, before anyone else leads", async () => {
    const { clock, kube } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    kube.fail("patch", "Lease", unreachable, 1000);
    kube.fail("get", "Lease", unreachable, 1000);
    const b = replica(kube, clock, "bb");
    await clock.advance(9_900);
    expect(a.leads()).toBe(true);
    await clock.advance(200);

    expect(a.leads()).toBe(false);
    expect(b.leads()).toBe(false);
    expect(await a.metric()).toBe(0);
    expect(a.history.slice(0, 2)).toEqual(["lead", "LEASE_LOST"]);
    expect(a.history[2]).toMatch(/^threw: lease "operator" was lost: not renewed/);
    kube.stopFailing();
    await clock.advance(30_000);
    expect(b.leads()).toBe(true);
  });

  it("a short failure of renewal does not cost the lead", async () => {
    const { clock, kube } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    kube.fail("patch", "Lease", unreachable, 3);
    await clock.advance(600_000);

    expect(a.history).toEqual(["lead"]);
  });

  it("a renewal whose answer is lost does not cost the lead", async () => {
    const { clock, kube } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    kube.fail("patch", "Lease", unreachable, 1, { afterwards: true });
    await clock.advance(60_000);

    expect(a.history).toEqual(["lead"]);
  });

  it("a lease taken by someone else is lost at the next renewal", async () => {
    const { clock, kube } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    kube.edit(leases, lease, (object) => {
      object.spec = { ...object.spec, holderIdentity: "intruder" };
    });
    await clock.advance(2_500);

    expect(a.history.slice(0, 2)).toEqual(["lead", "LEASE_LOST"]);
    expect(kube.peek(leases, lease)?.spec?.holderIdentity).toBe("intruder");
  });

  it("an edit of the lease that leaves the holder, or its deletion, is survived", async () => {
    const { clock, kube, holder } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    kube.edit(leases, lease, (object) => {
      object.metadata.labels = { seen: "yes" };
    });
    await clock.advance(10_000);
    kube.vanish(leases, lease);
    await clock.advance(10_000);

    expect(a.history).toEqual(["lead"]);
    expect(holder()).toBe("a");
  });

  it("jumps of the wall clock neither end a lead nor start one", async () => {
    const { clock, kube } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    const b = replica(kube, clock, "bb");
    for (const jump of [86_400_000, -3 * 86_400_000, 1_000_000]) {
      clock.jump(jump);
      await clock.advance(20_000);
    }

    expect([a.history, b.history]).toEqual([["lead"], []]);
  });

  it("work that ignores the loss holds the process no longer than the lease", async () => {
    const { clock, kube } = start();
    const elector = new LeaderElector({
      client: kube,
      clock,
      rng: createSeededRng(),
      logger: silentLogger,
      metrics: createKubeMetrics(new Registry()),
      lease,
      identity: "a",
    });
    let ended = "";
    elector
      .lead(new AbortController().signal, () => new Promise(() => {}))
      .catch((error: unknown) => {
        ended = describeError(error);
      });
    await clock.settle();
    kube.fail("*", "Lease", unreachable, 1000);
    await clock.advance(15_000);

    expect(ended).toMatch(/was lost/);
  });

  it("a hand-over is no error, and the API server that was away is told of by the client alone", async () => {
    const { clock, kube } = start();
    const a = replica(kube, clock, "a");
    await clock.settle();
    kube.fail("*", "Lease", unreachable, 1000);
    await clock.advance(60_000);

    expect(a.told()).toEqual(["info: leading", "warn: lease lost"]);
  });

  it("a lease that must not be read is one line, and so is its end", async () => {
    const { clock, kube } = start();
    kube.fail("get", "Lease", new KubeError("no", { status: 403, reason: "Forbidden" }), 20);
    const a = replica(kube, clock, "a");
    await clock.advance(120_000);

    expect(a.told()).toEqual([
      "warn: lease cannot be read or taken",
      "info: lease can be read and written again",
      "info: leading",
    ]);
  });

  it("work that fails releases the lease", async () => {
    const { clock, kube, holder } = start();
    const elector = new LeaderElector({
      client: kube,
      clock,
      rng: createSeededRng(),
      logger: silentLogger,
      metrics: createKubeMetrics(new Registry()),
      lease,
      identity: "a",
    });
    const leading = elector.lead(new AbortController().signal, async () => {
      throw new Error("broken");
    });

    await expect(leading).rejects.toThrow("broken");
    expect(holder()).toBe("");
  });
});
