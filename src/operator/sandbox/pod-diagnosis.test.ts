import { describe, expect, it } from "@jest/globals";
import { aContainer, aSandboxPod } from "../../../test/builders/pods.ts";
import type { ContainerState, PodStatus } from "../kinds.ts";
import { viewStart, whyLost } from "./pod-diagnosis.ts";

const starting = (state: ContainerState, changes = {}): PodStatus => ({
  phase: "Pending",
  containerStatuses: [aContainer({ ready: false, state, ...changes })],
});
const setup = (state: ContainerState, changes = {}): PodStatus => ({
  phase: "Pending",
  initContainerStatuses: [aContainer({ name: "setup", ready: false, state, ...changes })],
});

describe("a pod that starts", () => {
  it("is ready when its containers are and it has an address", () => {
    const containerStatuses = [aContainer(), aContainer({ name: "daemon" })];
    const status = { podIP: "10.0.0.9", containerStatuses };

    expect(viewStart(aSandboxPod(status))).toEqual({ kind: "ready", ip: "10.0.0.9" });
  });

  it.each([
    {
      name: "the kubelet backs off pulling",
      status: starting({ waiting: { reason: "ImagePullBackOff", message: "Back-off" } }),
      reason: "ImagePullFailed",
      says: 'image "drover-sandbox:dev" cannot be pulled: Back-off',
    },
    {
      name: "the registry has no such image",
      status: starting({ waiting: { reason: "ErrImagePull", message: "manifest unknown" } }),
      reason: "ImagePullFailed",
      says: "manifest unknown",
    },
    {
      name: "the image's name is not one",
      status: setup({ waiting: { reason: "InvalidImageName", message: "bad" } }),
      reason: "ImagePullFailed",
      says: "bad",
    },
    {
      name: "the container exits with 0 at once",
      status: starting({ terminated: { exitCode: 0, reason: "Completed" } }),
      reason: "ExitedEarly",
      says: "exit code 0",
    },
    {
      name: "the container has exited with 3 and waits to be restarted",
      status: starting(
        { waiting: { reason: "CrashLoopBackOff" } },
        { restartCount: 1, lastState: { terminated: { exitCode: 3, reason: "Error" } } },
      ),
      reason: "ExitedEarly",
      says: "exit code 3",
    },
    {
      name: "the daemon ends at once",
      status: {
        containerStatuses: [
          aContainer(),
          aContainer({ name: "daemon", ready: false, state: { terminated: { exitCode: 2 } } }),
        ],
      },
      reason: "ExitedEarly",
      says: "the sandbox's daemon ended with exit code 2",
    },
    {
      name: "the set-up script fails",
      status: setup({ terminated: { exitCode: 1, message: "no such file" } }),
      reason: "SetupFailed",
      says: "exit code 1: no such file",
    },
    {
      name: "the set-up script failed and is tried again",
      status: setup({ running: {} }, { lastState: { terminated: { exitCode: 1 } } }),
      reason: "SetupFailed",
      says: "exit code 1",
    },
    {
      name: "the set-up script runs out of memory",
      status: setup({ terminated: { exitCode: 137, reason: "OOMKilled" } }),
      reason: "SetupFailed",
      says: "limit 512Mi",
    },
    {
      name: "the pod's configuration is wrong",
      status: starting({ waiting: { reason: "CreateContainerConfigError", message: "uid" } }),
      reason: "ConfigError",
      says: "uid",
    },
    {
      name: "the node evicts it",
      status: { phase: "Failed" as const, reason: "Evicted", message: "low on memory" },
      reason: "Evicted",
      says: "low on memory",
    },
    {
      name: "the node refuses it",
      status: { phase: "Failed" as const, reason: "OutOfcpu", message: "no cpu" },
      reason: "PodFailed",
      says: "OutOfcpu",
    },
  ])("$name: $reason at once", ({ status, reason, says }) => {
    const pod = aSandboxPod(status, { setupScript: "true" });

    expect(viewStart(pod)).toMatchObject({
      kind: "failed",
      trouble: { reason, message: expect.stringContaining(says) },
    });
  });

  it.each([
    {
      name: "no node has room",
      status: {
        conditions: [
          { type: "PodScheduled", status: "False", reason: "Unschedulable", message: "0/3 nodes" },
        ],
      },
      reason: "Unschedulable",
    },
    {
      name: "a pull failed once, for what may pass",
      status: starting({ waiting: { reason: "ErrImagePull", message: "i/o timeout" } }),
      reason: "ImagePullFailed",
    },
    {
      name: "the runtime is overloaded",
      status: starting({ waiting: { reason: "CreateContainerError", message: "deadline" } }),
      reason: "ConfigError",
    },
    {
      name: "the set-up script runs",
      status: setup({ running: {} }),
      reason: "StartDeadlineExceeded",
    },
    { name: "nothing is known yet", status: {}, reason: "StartDeadlineExceeded" },
    {
      name: "the tools are there and the daemon is not ready",
      status: {
        podIP: "10.0.0.9",
        containerStatuses: [aContainer(), aContainer({ name: "daemon", ready: false })],
      },
      reason: "StartDeadlineExceeded",
    },
    {
      name: "it is ready and has no address yet",
      status: { containerStatuses: [aContainer()] },
      reason: "StartDeadlineExceeded",
    },
  ])("$name: waits, and would say $reason", ({ status, reason }) => {
    expect(viewStart(aSandboxPod(status))).toMatchObject({ kind: "starting", trouble: { reason } });
  });
});

describe("a pod in use", () => {
  const used = (changes = {}): PodStatus => ({
    phase: "Running",
    podIP: "10.0.0.9",
    containerStatuses: [aContainer(changes)],
  });

  it.each([
    { name: "runs", status: used() },
    {
      name: "was restarted by the kubelet on the same volumes",
      status: used({
        restartCount: 1,
        lastState: { terminated: { exitCode: 137, reason: "Error" } },
      }),
    },
    { name: "is not ready for a moment", status: used({ ready: false }) },
  ])("that $name is not lost", ({ status }) => {
    expect(whyLost(aSandboxPod(status))).toBeUndefined();
  });

  it.each([
    {
      name: "ran out of memory",
      status: used({
        restartCount: 1,
        lastState: { terminated: { exitCode: 137, reason: "OOMKilled" } },
      }),
      reason: "OutOfMemory",
    },
    {
      name: "ends again and again",
      status: used({ restartCount: 3, state: { waiting: { reason: "CrashLoopBackOff" } } }),
      reason: "CrashLoop",
    },
    {
      name: "was evicted",
      status: { phase: "Failed" as const, reason: "Evicted" },
      reason: "Evicted",
    },
  ])("that $name is lost: $reason", ({ status, reason }) => {
    expect(whyLost(aSandboxPod(status))).toMatchObject({ reason });
  });

  it.each([
    { container: "sandbox", says: "the sandbox ran out of memory: it may use 512Mi" },
    { container: "daemon", says: "the sandbox's daemon ran out of memory: it may use 192Mi" },
  ])("whose $container ran out of memory says which, and its limit", ({ container, says }) => {
    const killed = { terminated: { exitCode: 137, reason: "OOMKilled" } };
    const containerStatuses = ["sandbox", "daemon"].map((name) =>
      aContainer({ name, ...(name === container ? { lastState: killed } : {}) }),
    );

    expect(whyLost(aSandboxPod({ containerStatuses }))?.message).toContain(says);
  });

  it.each([
    { conditions: [], reason: "PodDeleted" },
    {
      conditions: [{ type: "DisruptionTarget", status: "True", reason: "EvictionByEvictionAPI" }],
      reason: "Evicted",
    },
    {
      conditions: [{ type: "DisruptionTarget", status: "True", reason: "DeletionByTaintManager" }],
      reason: "NodeLost",
    },
  ])("that is being deleted is lost: $reason", ({ conditions, reason }) => {
    const pod = aSandboxPod({ ...used(), conditions });
    pod.metadata.deletionTimestamp = "2026-01-01T00:00:00Z";

    expect(whyLost(pod)).toMatchObject({ reason });
  });
});
