import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { Pod } from "../../../src/operator/kinds.ts";
import {
  buildSandboxPod,
  type SandboxTemplateSnapshot,
} from "../../../src/operator/sandbox/pod.ts";
import { aSnapshot, aTemplateSnapshot } from "../../builders/snapshot.ts";
import { type ApiServer, startApiServer } from "../../cluster/api-server.ts";
import { forbidden } from "./forbidden-pods.ts";

/**
 * T13: pods with the sandbox label that could hold a credential or reach the node, on a real API
 * server with the policy that the chart installs. Each is first accepted without the policy, so that
 * nothing else is what refuses it, then refused with it: as it is, and as what a mutating webhook
 * (Vault's or Istio's injector) makes of a clean pod.
 */

const POLICY = "deploy/admission/sandbox-pod-policy.yaml";
const ours = "ours"; // Pod Security: restricted
const open = "open"; // Pod Security: privileged, so that only the policy can refuse
/** On a pod: which variant the injector makes of it. */
const INJECT = "test.example.org/inject";

let api: ApiServer;
let injector: Server;

beforeAll(async () => {
  api = await startApiServer();
  for (const [name, level] of [
    [ours, "restricted"],
    [open, "privileged"],
  ]) {
    await apply({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name, labels: { "pod-security.kubernetes.io/enforce": level } },
    });
  }
  await startInjector();
}, 120_000);

afterAll(async () => {
  injector?.closeAllConnections();
  injector?.close();
  await api?.stop();
});

function aPod(
  namespace: string,
  name = "a-sandbox",
  template: Partial<SandboxTemplateSnapshot> = {},
  userNamespaces = false,
): Pod {
  const snapshot = aSnapshot();
  const pod = buildSandboxPod(
    {
      tenant: namespace,
      sessionId: snapshot.sessionId,
      hand: "sandbox",
      generation: 1,
      requestId: "sevt_1",
    },
    { name: "hello", uid: "7f0f7a6e-0000-4000-8000-000000000001" },
    aTemplateSnapshot({ setupScript: "echo hello", ...template }),
    { publicKeys: { keys: [] }, userNamespaces },
  );
  pod.metadata.name = name;
  return pod;
}

const variants = forbidden.map((variant, index) => {
  const pod = aPod(open, `made-${index}`);
  variant.change(pod);
  const injected = aPod(open, `injected-${index}`);
  injected.metadata.annotations = { ...injected.metadata.annotations, [INJECT]: `${index}` };
  return { ...variant, pod, injected };
});

async function apply(object: unknown): Promise<void> {
  const result = await api.kubectl(["apply", "-f", "-"], JSON.stringify(object));
  if (result.code !== 0) throw new Error(result.stderr);
}

/** `kubectl apply` of all of them at once; what it says of each on a line of its own. */
async function applyAll(pods: readonly Pod[], ...options: string[]): Promise<string[]> {
  const list = { apiVersion: "v1", kind: "List", items: pods };
  const result = await api.kubectl(["apply", ...options, "-f", "-"], JSON.stringify(list));
  const lines = `${result.stdout}\n${result.stderr}`.split("\n");
  return pods.map(({ metadata: { name } }) => {
    const own = lines.filter((line) => line.includes(`/${name} `) || line.includes(`"${name}"`));
    return own.join("\n");
  });
}

function tryPod(pod: Pod) {
  return api.kubectl(["create", "--dry-run=server", "-f", "-"], JSON.stringify(pod));
}

/** A mutating webhook, as injectors of credentials are: it turns an annotated pod into a variant. */
async function startInjector(): Promise<void> {
  // The API server's own certificate names 127.0.0.1 too.
  const file = async (name: string) => await readFile(join(dirname(api.caPath), name));
  const tls = { cert: await file("server.crt"), key: await file("server.key") };
  injector = createServer(tls, (request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => (body += text));
    request.on("end", () => {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(injectorAnswer(body)));
    });
  });
  await new Promise<void>((resolve) => injector.listen(0, "127.0.0.1", resolve));
  const { port } = injector.address() as AddressInfo;
  await apply({
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "MutatingWebhookConfiguration",
    metadata: { name: "injector" },
    webhooks: [
      {
        name: "injector.example.org",
        admissionReviewVersions: ["v1"],
        sideEffects: "None",
        clientConfig: {
          url: `https://127.0.0.1:${port}/`,
          caBundle: (await readFile(api.caPath)).toString("base64"),
        },
        rules: [
          { apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["pods"] },
        ],
      },
    ],
  });
}

function injectorAnswer(body: string) {
  const review = JSON.parse(body) as { request: { uid: string; object: Pod } };
  const { uid, object } = review.request;
  const variant = variants[Number(object.metadata.annotations?.[INJECT] ?? "none")];
  const patch =
    variant === undefined
      ? []
      : [
          { op: "replace", path: "/spec", value: variant.pod.spec },
          { op: "replace", path: "/metadata/labels", value: variant.pod.metadata.labels },
        ];
  const encoded = Buffer.from(JSON.stringify(patch)).toString("base64");
  return {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    response: { uid, allowed: true, patchType: "JSONPatch", patch: encoded },
  };
}

/** The API server takes a moment to know a new policy or webhook. */
async function settled(check: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 200 && !(await check()); tries += 1) await sleep(100);
}

describe("without the policy", () => {
  let made: string[] = [];
  let injected: string[] = [];

  beforeAll(async () => {
    await settled(async () => {
      const probe = variants[0]?.injected ?? aPod(open);
      const args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
      return (await api.kubectl(args, JSON.stringify(probe))).stdout.includes("secretName");
    });
    made = await applyAll(
      variants.map(({ pod }) => pod),
      "--dry-run=server",
    );
    injected = await applyAll(
      variants.map((variant) => variant.injected),
      "--dry-run=server",
    );
  }, 60_000);

  it.each(forbidden.map(({ name }, index) => ({ name, index })))(
    "a pod with $name is accepted, so nothing else refuses it",
    ({ index }) => {
      expect(made[index]).toMatch(/created/);
      expect(injected[index]).toMatch(/created/);
    },
  );

  it("the injector does what it is for: a clean pod comes out with a Secret", async () => {
    const pod = variants[0]?.injected;
    const args = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    const { stdout } = await api.kubectl(args, JSON.stringify(pod));

    expect(JSON.stringify(pod)).not.toContain("secretName");
    expect(stdout).toContain("secretName");
  });
});

describe("with the policy", () => {
  let made: string[] = [];
  let injected: string[] = [];

  beforeAll(async () => {
    const created = await api.kubectl(["create", "-f", "-"], await readFile(POLICY, "utf8"));
    if (created.code !== 0) throw new Error(created.stderr);
    const probe = aPod(open);
    probe.spec.serviceAccountName = "another";
    await settled(async () => (await tryPod(probe)).code !== 0);
    made = await applyAll(variants.map(({ pod }) => pod));
    injected = await applyAll(variants.map((variant) => variant.injected));
  }, 60_000);

  it.each(forbidden.map((variant, index) => ({ ...variant, index })))(
    "a pod with $name is refused, and the message says why",
    ({ index, message }) => {
      expect(made[index]).toContain("drover-sandbox-pods");
      expect(made[index]).toContain(message);
    },
  );

  it.each(forbidden.map((variant, index) => ({ ...variant, index })))(
    "a clean pod that an injector gives $name is refused",
    ({ index, message }) => {
      expect(injected[index]).toContain("drover-sandbox-pods");
      expect(injected[index]).toContain(message);
    },
  );

  it("none of them is there", async () => {
    const { stdout } = await api.kubectl(["get", "pods", "-n", open, "-o", "name"]);

    expect(stdout).toBe("");
  });

  it("our own pod is accepted, also by Pod Security restricted, without a warning", async () => {
    const result = await tryPod(aPod(ours));

    expect(result.stderr).toBe("");
    expect(result.code).toBe(0);
  });

  it.each([
    { name: "without a set-up script", template: { setupScript: undefined } },
    { name: "in a user namespace", userNamespaces: true },
    { name: "under a runtime class", template: { runtimeClassName: "gvisor" } },
  ])("our own pod $name is accepted too", async ({ template, userNamespaces }) => {
    await apply({
      apiVersion: "node.k8s.io/v1",
      kind: "RuntimeClass",
      metadata: { name: "gvisor" },
      handler: "runsc",
      overhead: { podFixed: { memory: "64Mi" } },
      scheduling: { tolerations: [{ key: "sandboxes", operator: "Exists" }] },
    });
    const pod = aPod(ours, "another", template, userNamespaces);

    expect(await tryPod(pod)).toMatchObject({ code: 0, stderr: "" });
  });

  it("a pod that an AgentSession does not own is refused", async () => {
    const pod = aPod(open, "ownerless");
    pod.metadata.ownerReferences = [];

    expect((await tryPod(pod)).stderr).toContain("owned by one AgentSession");
  });

  it("a pod that is scheduled and runs can still be labelled, and gets nothing new", async () => {
    await apply(aPod(ours, "scheduled"));
    const binding = {
      apiVersion: "v1",
      kind: "Binding",
      metadata: { name: "scheduled", namespace: ours },
      target: { apiVersion: "v1", kind: "Node", name: "node-1" },
    };
    const path = `/api/v1/namespaces/${ours}/pods/scheduled/binding`;
    const bound = await api.kubectl(["create", "--raw", path, "-f", "-"], JSON.stringify(binding));
    const label = await api.kubectl(["-n", ours, "label", "pod", "scheduled", "team=blue"]);
    const image = await api.kubectl(["-n", ours, "set", "image", "pod/scheduled", "sandbox=evil"]);

    expect(bound).toMatchObject({ code: 0 });
    expect(label).toMatchObject({ code: 0, stderr: "" });
    expect(image.stderr).toContain("one image");
  });

  it("a pod without the label is none of its business", async () => {
    const pod = aPod(open);
    pod.metadata.labels = {};
    pod.spec.hostNetwork = true;

    expect((await tryPod(pod)).code).toBe(0);
  });

  it("the label can be neither removed nor changed later, and other labels can", async () => {
    await apply(aPod(ours, "kept"));
    const label = (text: string) =>
      api.kubectl(["-n", ours, "label", "--overwrite", "pod", "kept", text]);

    const removed = await label("drover.dev/sandbox-");
    const changed = await label("drover.dev/sandbox=false");
    const other = await label("team=blue");

    expect(removed.stderr).toContain("isolation policies select by it");
    expect(changed.stderr).toContain("isolation policies select by it");
    expect(other.code).toBe(0);
  });

  it("the label cannot be lost by way of the pod's status, which can otherwise be written", async () => {
    await apply(aPod(ours, "reported"));
    const status = (patch: object) =>
      api.kubectl([
        "-n",
        ours,
        "patch",
        "pod",
        "reported",
        "--subresource=status",
        "--type=merge",
        `--patch=${JSON.stringify(patch)}`,
      ]);

    const removed = await status({ metadata: { labels: { "drover.dev/sandbox": null } } });
    const changed = await status({ metadata: { labels: { "drover.dev/sandbox": "no" } } });
    const reported = await status({ status: { message: "from its kubelet" } });

    expect(removed.stderr).toContain("drover-sandbox-labels");
    expect(changed.stderr).toContain("drover-sandbox-labels");
    expect(reported).toMatchObject({ code: 0, stderr: "" });
  });

  it("no ephemeral container can be added to a running sandbox", async () => {
    await apply(aPod(ours, "debugged"));

    const result = await api.kubectl([
      "-n",
      ours,
      "debug",
      "debugged",
      "--image=busybox",
      "--target=sandbox",
      "--profile=restricted",
      "--",
      "sh",
    ]);

    expect(result.stderr).toContain("ephemeral containers must not be added");
  });

  it("an unlabelled pod that runs already cannot be made a sandbox with what it has", async () => {
    const pod = aPod(open, "smuggled");
    pod.metadata.labels = {};
    pod.spec.hostNetwork = true;
    await apply(pod);

    const result = await api.kubectl([
      "-n",
      open,
      "label",
      "pod",
      "smuggled",
      "drover.dev/sandbox=true",
    ]);

    expect(result.stderr).toContain("hostNetwork");
  });
});
