import { describe, expect, it } from "@jest/globals";
import { aSandboxPod } from "../../../test/builders/pods.ts";
import type { Pod } from "../kinds.ts";

const named = (pod: Pod, name: string) => {
  const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
  const found = all.find((container) => container.name === name);
  if (found === undefined) throw new Error(`no container ${name}`);
  return found;
};
const mounts = (pod: Pod, name: string) =>
  Object.fromEntries(
    (named(pod, name).volumeMounts ?? []).map((mount) => [
      mount.name,
      mount.readOnly === true ? "read" : "write",
    ]),
  );

describe("the sandbox pod", () => {
  const pod = aSandboxPod({}, { setupScript: "true" });

  it("has the tools in one container and the daemon in another, of one image", () => {
    expect(pod.spec.containers.map(({ name }) => name)).toEqual(["sandbox", "daemon"]);
    expect(
      new Set([...pod.spec.containers, named(pod, "setup")].map(({ image }) => image)),
    ).toEqual(new Set(["drover-sandbox:dev"]));
  });

  it("keeps them apart: other users, no common process namespace", () => {
    const tools = pod.spec.securityContext?.runAsUser;
    expect(named(pod, "sandbox").securityContext?.runAsUser).toBeUndefined();
    expect(named(pod, "setup").securityContext?.runAsUser).toBeUndefined();
    expect(tools).toBe(10_001);
    expect(named(pod, "daemon").securityContext).toMatchObject({
      runAsUser: 10_005,
      runAsGroup: 10_005,
    });
    expect(pod.spec.shareProcessNamespace).toBe(false);
  });

  it("gives the journal to the daemon alone, and its socket to the tools to read only", () => {
    expect(mounts(pod, "daemon")).toEqual({ state: "write", control: "write" });
    expect(mounts(pod, "sandbox")).toEqual({
      workspace: "write",
      tmp: "write",
      run: "write",
      control: "read",
    });
    expect(mounts(pod, "setup")).toEqual({ workspace: "write", tmp: "write" });
  });

  it("gives the template's resources to the tools, and the daemon its own", () => {
    expect(named(pod, "sandbox").resources?.limits?.["memory"]).toBe("512Mi");
    expect(named(pod, "daemon").resources?.limits?.["memory"]).toBe("192Mi");
  });

  it("has the kubelet wait for the daemon before it probes, and runs no script of the image for that", () => {
    const command = named(pod, "daemon").lifecycle?.postStart?.exec?.command;

    expect(command?.slice(0, 3)).toEqual(["bash", "-p", "-c"]);
    expect(named(pod, "sandbox").lifecycle).toBeUndefined();
    expect(named(pod, "daemon").readinessProbe?.httpGet?.path).toBe("/healthz");
  });

  it("starts both without a debugger, from a program that only root may read", () => {
    for (const name of ["sandbox", "daemon"]) {
      const { command, env } = named(pod, name);
      expect(command?.slice(0, 4)).toEqual([
        "/opt/drover/bin/tini",
        "--",
        "/opt/drover/bin/node",
        "--disable-sigusr1",
      ]);
      expect(env).toContainEqual({ name: "NODE_OPTIONS", value: "" });
    }
  });
});
