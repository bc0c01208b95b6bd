import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { silentLogger } from "../runtime/logger.ts";
import { KubeError } from "./errors.ts";
import { EventRecorder, type RecordedEvent } from "./event-recorder.ts";
import { events, pods } from "./resources.ts";

function start() {
  const clock = new FakeClock();
  const kube = new FakeKube();
  const recorder = new EventRecorder({
    client: kube,
    clock,
    rng: createSeededRng(),
    logger: silentLogger,
    reportingController: "drover.dev/operator",
    reportingInstance: "operator-1",
  });
  const pod = { metadata: { name: "a", namespace: "one", uid: "u-1" } };
  const record = (change: Partial<RecordedEvent> = {}) =>
    recorder.record(pods, pod, {
      type: "Warning",
      reason: "SandboxLost",
      action: "Provision",
      note: "the pod is gone",
      ...change,
    });
  const written = () => kube.objects(events);
  return { clock, kube, recorder, record, written };
}

describe("EventRecorder", () => {
  it("writes an events.k8s.io/v1 Event in the object's namespace", async () => {
    const { record, recorder, written } = start();
    record();
    await recorder.flush();

    expect(written()).toMatchObject([
      {
        metadata: { namespace: "one", name: expect.stringMatching(/^a\.\w{12}$/) },
        type: "Warning",
        reason: "SandboxLost",
        action: "Provision",
        note: "the pod is gone",
        reportingController: "drover.dev/operator",
        reportingInstance: "operator-1",
        regarding: { apiVersion: "v1", kind: "Pod", name: "a", namespace: "one", uid: "u-1" },
      },
    ]);
  });

  it("repeats become one series, other facts and later repeats events of their own", async () => {
    const { clock, record, recorder, written } = start();
    for (let n = 0; n < 5; n += 1) record();
    record({ note: "another pod is gone" });
    await recorder.flush();
    expect(written().map(({ series }) => series?.count)).toEqual([5, undefined]);
    await clock.advance(7 * 60_000);
    record();
    await recorder.flush();

    expect(written()).toHaveLength(3);
  });

  it("a series whose first event has expired begins anew", async () => {
    const { kube, record, recorder, written } = start();
    record();
    await recorder.flush();
    kube.vanish(events, written()[0]?.metadata ?? { name: "" });
    record();
    await recorder.flush();

    expect(written()).toHaveLength(1);
    expect(written()[0]?.series).toBeUndefined();
  });

  it("one object's storm costs a burst and then a trickle", async () => {
    const { clock, kube, record, recorder } = start();
    for (let n = 0; n < 500; n += 1) record({ note: `fact ${n}` });
    await recorder.flush();
    expect(kube.requests).toHaveLength(25);
    await clock.advance(600_000);
    for (let n = 0; n < 500; n += 1) record({ note: `fact ${n}` });
    await recorder.flush();

    expect(kube.requests).toHaveLength(27);
  });

  it("tries again when the server is away, gives up when it refuses, and never throws", async () => {
    const { clock, kube, record, recorder, written } = start();
    kube.fail("create", "Event", new KubeError("cut", { status: 0, reason: "Unreachable" }), 2);
    record();
    await clock.advance(20_000);
    await recorder.flush();
    expect(written()).toHaveLength(1);
    kube.fail("create", "Event", new KubeError("no", { status: 403, reason: "Forbidden" }));
    kube.fail("create", "Event", new TypeError("a bug"));
    record({ note: "refused" });
    record({ note: "broken" });
    record({ note: "fine" });
    await recorder.flush();

    expect(written().map(({ note }) => note)).toEqual(["the pod is gone", "fine"]);
  });

  it("cuts a long note to what the API server takes, at a character", async () => {
    const { record, recorder, written } = start();
    record({ note: "é".repeat(2000) });
    await recorder.flush();

    const note = written()[0]?.note ?? "";
    expect(Buffer.byteLength(note)).toBeLessThanOrEqual(1000);
    expect(note).toMatch(/^é+…$/u);
  });

  it("close gives up a retry and takes nothing more", async () => {
    const { clock, kube, record, recorder, written } = start();
    kube.fail("create", "Event", new KubeError("cut", { status: 0, reason: "Unreachable" }), 99);
    record();
    await clock.settle();
    await recorder.close();
    record();
    await recorder.flush();

    expect([written().length, clock.pending]).toEqual([0, 0]);
  });
});
