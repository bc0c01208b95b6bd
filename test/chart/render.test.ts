import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { parse } from "yaml";
import { LABELS } from "../../src/api/names.ts";
import { ISSUER_SECRET } from "../../src/operator/issuer/key-store.ts";
import { VERSION } from "../../src/runtime/version.ts";
import { REDIS_PROCESSES } from "../../src/sessions/redis/users.ts";
import { installArguments } from "../e2e/installation.ts";
import {
  CASES,
  CHART,
  containersOf,
  find,
  helm,
  NAMESPACE,
  parseManifests,
  podTemplates,
  RELEASE,
  type Rendered,
  render,
  renderText,
} from "./helm.ts";

const production = ["-f", `${CHART}/ci/production-values.yaml`];
const evaluation = ["-f", `${CHART}/ci/evaluation-values.yaml`];

describe.each(CASES)("with $name", ({ values }) => {
  let objects: Rendered[];

  beforeAll(async () => {
    objects = await render(values);
  });

  it("lint finds nothing to say", async () => {
    const result = await helm(["lint", "--strict", CHART, ...values]);

    expect(result.stdout + result.stderr).not.toMatch(/\[(WARNING|ERROR)\]/);
    expect(result.code).toBe(0);
  });

  it("every object is found by our labels", () => {
    for (const { kind, metadata } of objects) {
      const { name, labels } = metadata;
      expect({ kind, name, labels }).toMatchObject({
        labels: {
          [LABELS.name]: "drover",
          [LABELS.instance]: "drover",
          [LABELS.component]: expect.stringMatching(/^[a-z-]+$/),
          [LABELS.partOf]: "drover",
          [LABELS.managedBy]: "Helm",
          "app.kubernetes.io/version": VERSION,
        },
      });
    }
  });

  it("no two objects have one name, and none names a namespace", () => {
    const names = objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`);

    expect(new Set(names).size).toBe(names.length);
    expect(objects.filter(({ metadata }) => metadata.namespace !== undefined)).toEqual([]);
  });

  it("pods carry the labels of their workload, so that an uninstall can be checked", () => {
    for (const { labels } of podTemplates(objects)) {
      expect(labels).toMatchObject({ [LABELS.partOf]: "drover", [LABELS.managedBy]: "Helm" });
    }
  });

  it("every pod keeps to Pod Security restricted, and to a read-only root", () => {
    for (const template of podTemplates(objects)) {
      const { of, spec } = template;
      expect({ of, spec }).toMatchObject({
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: expect.any(Number),
            seccompProfile: { type: "RuntimeDefault" },
          },
        },
      });
      expect(spec.securityContext?.runAsUser).toBeGreaterThan(0);
      expect(spec.hostNetwork ?? spec.hostPID ?? spec.hostIPC).toBeUndefined();
      for (const { name, securityContext, ports, resources } of containersOf(template)) {
        expect({ of, name, securityContext, resources }).toEqual({
          of,
          name,
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            runAsNonRoot: true,
            capabilities: { drop: ["ALL"] },
            seccompProfile: { type: "RuntimeDefault" },
          },
          resources: {
            requests: { cpu: expect.any(String), memory: expect.any(String) },
            limits: { memory: expect.any(String) },
          },
        });
        expect(ports?.some(({ hostPort }) => hostPort !== undefined) ?? false).toBe(false);
      }
    }
  });

  it("volumes are secrets, config, tokens, claims or sized emptyDirs, never a host path", () => {
    const allowed = ["emptyDir", "configMap", "secret", "projected", "persistentVolumeClaim"];
    for (const { spec } of podTemplates(objects)) {
      for (const volume of spec.volumes ?? []) {
        expect(allowed).toEqual(
          expect.arrayContaining(Object.keys(volume).filter((key) => key !== "name")),
        );
      }
    }
  });

  it("only the operator and the uninstall hook get a token, a short-lived one", () => {
    const tokens = podTemplates(objects).flatMap(({ of, spec }) =>
      (spec.volumes ?? []).flatMap(({ projected }) =>
        (projected?.sources ?? []).flatMap(({ serviceAccountToken }) =>
          serviceAccountToken === undefined
            ? []
            : [`${of} ${serviceAccountToken.expirationSeconds}`],
        ),
      ),
    );

    expect(tokens.toSorted()).toEqual([
      "Deployment drover-operator 3600",
      "Job drover-cleanup 3600",
    ]);
  });
});

it("the values of the end-to-end tests render", async () => {
  const objects = await render(installArguments);

  expect(objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).toEqual(
    expect.arrayContaining([
      "StatefulSet/drover-valkey",
      "Deployment/drover-operator",
      "Deployment/drover-scripted-model",
      "HarnessPool/default",
    ]),
  );
  const { data } = find(objects, "ConfigMap", "drover-scripted-model") as unknown as {
    data: Record<string, string>;
  };
  expect(Object.keys(data)).toEqual(["e2e.yaml", ...readdirSync("deploy/examples/scripts")]);
});

it("the size of the default pool can be left to an autoscaler, and can be zero", async () => {
  const replicas = async (value: string) => {
    const objects = await render([...evaluation, "--set", `defaultPool.replicas=${value}`]);
    return find(objects, "HarnessPool", "default")["spec"];
  };

  expect(await replicas("null")).not.toHaveProperty("replicas");
  expect(await replicas("0")).toHaveProperty("replicas", 0);
});

describe("what a person reads after the installation", () => {
  const notes = async (...values: string[]) =>
    (await helm(["install", RELEASE, CHART, "-n", NAMESPACE, "--dry-run=client", ...values])).stdout
      .split("NOTES:\n")
      .at(-1);

  it("names the next command and the removal, in the namespace it was installed in", async () => {
    const text = await notes(...evaluation);

    expect(text).toContain(`kubectl apply -n ${NAMESPACE} -f deploy/examples/minimal.yaml`);
    expect(text).toContain(`helm uninstall ${RELEASE} -n ${NAMESPACE}`);
    expect(text).toContain("kubectl delete crd -l app.kubernetes.io/part-of=drover");
  });

  it("warns of what is for evaluation only", async () => {
    expect(await notes(...evaluation)).toContain("WARNING: valkey.enabled");
    expect(await notes(...production)).not.toContain("WARNING");
  });

  it("says what the edge is for where it is off, and what a vault gives up by its fallback", async () => {
    expect(await notes("-f", `${CHART}/ci/minimal-values.yaml`)).toContain("The edge is off");
    expect(await notes("-f", `${CHART}/ci/vault-values.yaml`)).toContain(
      "WARNING: vault.sessionIdentity=pod",
    );
    expect(await notes(...production)).not.toMatch(/edge|vault/);
  });

  it("says how to give the model its key while there is none", async () => {
    const bare = ["-f", `${CHART}/ci/minimal-values.yaml`];

    expect(await notes(...bare)).toContain("--set model.existingSecret=model-key");
    expect(await notes(...production)).not.toContain("No model key");
  });
});

describe("images", () => {
  it("one switch moves them all to a mirror", async () => {
    const text = await renderText([
      ...evaluation,
      "--set",
      "global.imageRegistry=mirror.example.com/x",
    ]);
    const images = [...text.matchAll(/^\s*(?:- )?image: "?([^\s"]+)/gm)].map((match) => match[1]);

    expect(new Set(images)).toEqual(
      new Set(["mirror.example.com/x/drover:0.1.0", "mirror.example.com/x/valkey/valkey:8"]),
    );
    expect(text).toContain('DROVER_IMAGE, value: "mirror.example.com/x/drover:0.1.0"');
  });

  it("operator, scripted model, hook and harness pools run one image, by digest when there is one", async () => {
    const values = [...production, "--set", "scriptedModel.enabled=true"];
    const templates = podTemplates(await render(values));
    const containers = templates.flatMap(containersOf);

    const digest = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const image = `registry.example.com/mirror/team/drover@${digest}`;
    expect(containers.map((container) => container.image)).toEqual([image, image, image]);
    expect(containers.map(({ imagePullPolicy }) => imagePullPolicy)).toEqual(
      Array(3).fill("Always"),
    );
    for (const { spec } of templates) {
      expect(spec.imagePullSecrets).toEqual([{ name: "registry-one" }, { name: "registry-two" }]);
    }
    const env = containers.find(({ name }) => name === "operator")?.env;
    expect(env).toContainEqual({ name: "DROVER_IMAGE", value: image });
  });
});

describe("secrets", () => {
  it("the passwords of Valkey's users stand in its Secret and nowhere else", async () => {
    const objects = await render(evaluation);
    const { data } = find(objects, "Secret", "drover-valkey") as unknown as {
      data: Record<string, string>;
    };
    const decode = (key: string) => Buffer.from(data[key] ?? "", "base64").toString();

    for (const name of REDIS_PROCESSES) {
      expect(decode(name)).toMatch(/^[A-Za-z0-9]{40}$/);
      const holders = objects.filter((object) => {
        const text = JSON.stringify(object);
        return text.includes(decode(name)) || text.includes(data[name] ?? "");
      });
      expect(holders.map(({ kind, metadata }) => `${kind}/${metadata.name}`)).toEqual([
        "Secret/drover-valkey",
      ]);
      expect(decode("users.acl") + decode("valkey.conf")).not.toContain(decode(name));
    }
  });

  it("Valkey mounts hashes of passwords, and the operator its own password alone", async () => {
    const templates = podTemplates(await render(evaluation));
    const keysOf = (of: string) =>
      templates
        .find((template) => template.of === of)
        ?.spec.volumes?.flatMap(({ secret }) => secret?.items?.map(({ key }) => key) ?? []);

    expect(keysOf("StatefulSet drover-valkey")).toEqual(["valkey.conf", "users.acl"]);
    expect(keysOf("Deployment drover-operator")).toEqual(["operator"]);
  });

  it("the issuer's Secret is shipped without a field that the operator writes", async () => {
    const { metadata, ...rest } = find(await render(evaluation), "Secret", ISSUER_SECRET);

    expect(rest).toEqual({ apiVersion: "v1", kind: "Secret", type: "Opaque" });
    expect(metadata.annotations).toBeUndefined();
  });

  it("with an issuer Secret of the user's, none is shipped", async () => {
    const objects = await render(production);

    expect(objects.filter(({ kind }) => kind === "Secret")).toEqual([]);
  });
});

it("the values of the guide to Redis users give each process the user of its name", async () => {
  const guide = readFileSync("docs/guides/redis-users.md", "utf8");
  const values = parse(/```yaml\n([^]*?)```/.exec(guide)?.[1] ?? "") as unknown;

  const objects = await render([
    "--set-json",
    `redis=${JSON.stringify((values as { redis: object }).redis)}`,
  ]);
  const operator = podTemplates(objects).find(({ of }) => of === "Deployment drover-operator");
  const env = operator?.spec.containers[0]?.env ?? [];
  const valueOf = (name: string) => env.find((variable) => variable.name === name)?.value;

  expect(valueOf("DROVER_REDIS_USERNAME")).toBe("operator");
  expect(valueOf("DROVER_REDIS_SECRET")).toBe("redis-login");
  for (const process of REDIS_PROCESSES.filter((name) => name !== "operator")) {
    expect(valueOf(`DROVER_REDIS_${process.toUpperCase()}_USERNAME`)).toBe(process);
    expect(valueOf(`DROVER_REDIS_${process.toUpperCase()}_SECRET_KEY`)).toBe(process);
  }
});

describe("the uninstall hook", () => {
  it("is made before the uninstall, its rights first, and goes after it", async () => {
    const hooks = (await render(evaluation)).filter(
      ({ metadata }) => metadata.annotations?.["helm.sh/hook"] !== undefined,
    );

    expect(
      hooks
        .map(({ kind, metadata }) => ({
          kind,
          name: metadata.name,
          weight: Number(metadata.annotations?.["helm.sh/hook-weight"]),
        }))
        .toSorted((a, b) => a.weight - b.weight || a.kind.localeCompare(b.kind)),
    ).toEqual([
      { kind: "ClusterRole", name: `drover-${NAMESPACE}-cleanup`, weight: -5 },
      { kind: "Role", name: "drover-cleanup", weight: -5 },
      { kind: "ServiceAccount", name: "drover-cleanup", weight: -5 },
      { kind: "ClusterRoleBinding", name: `drover-${NAMESPACE}-cleanup`, weight: -4 },
      { kind: "RoleBinding", name: "drover-cleanup", weight: -4 },
      { kind: "Job", name: "drover-cleanup", weight: 0 },
    ]);
    for (const { metadata } of hooks) {
      expect(metadata.annotations).toMatchObject({
        "helm.sh/hook": "pre-delete",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
      });
    }
  });
});

describe("monitoring kinds that the cluster lacks", () => {
  const monitors = ["-f", `${CHART}/ci/monitoring-values.yaml`, "--set"];

  it("are an error that names the switch", async () => {
    await expect(render([...monitors, "metrics.renderMode=failIfMissing"])).rejects.toThrow(
      "set metrics.renderMode to skipIfMissing",
    );
  });

  it("are left out on request, and rendered where the cluster has them", async () => {
    const skip = [...monitors, "metrics.renderMode=skipIfMissing"];
    const kinds = async (values: string[]) =>
      (await render(values)).map(({ kind }) => kind).filter((kind) => kind.endsWith("Monitor"));

    expect(await kinds(skip)).toEqual([]);
    expect(await kinds([...skip, "--api-versions", "monitoring.coreos.com/v1"])).toEqual(
      expect.arrayContaining(["ServiceMonitor", "PodMonitor"]),
    );
  });
});

describe("copies in the chart", () => {
  const copies = [
    ["files/sandbox-pod-policy.yaml", "deploy/admission/sandbox-pod-policy.yaml"],
    ["files/operator-policy.yaml", "deploy/admission/operator-policy.yaml"],
    ...readdirSync("deploy/examples/scripts").map((name) => [
      `files/scripts/${name}`,
      `deploy/examples/scripts/${name}`,
    ]),
  ].map(([copy = "", source = ""]) => ({ copy: join(CHART, copy), source }));

  it.each(copies)("$copy is $source, byte for byte", ({ copy, source }) => {
    expect(readFileSync(copy, "utf8")).toBe(readFileSync(source, "utf8"));
  });

  it("no script of an example that went is left over", () => {
    expect(readdirSync(join(CHART, "files/scripts"))).toEqual(
      readdirSync("deploy/examples/scripts"),
    );
  });

  it("the policies of the operator's account are installed with this release's names", async () => {
    const objects = await render(["-f", join(CHART, "ci/production-values.yaml")]);
    const policies = objects.filter(({ metadata }) =>
      metadata.name.startsWith(`${RELEASE}-${NAMESPACE}-operator-`),
    );
    const specs = policies.map(({ spec }) => JSON.stringify(spec)).join("\n");
    const sources = parseManifests(readFileSync("deploy/admission/operator-policy.yaml", "utf8"));

    expect(policies.filter(({ kind }) => kind.startsWith("ValidatingAdmission"))).toHaveLength(
      sources.length,
    );
    expect(specs).toContain(`system:serviceaccount:${NAMESPACE}:drover-operator`);
    expect(specs).not.toContain("system:serviceaccount:drover:");
    for (const text of [
      `'${NAMESPACE}'`,
      "'registry.example.com/mirror/team/drover@sha256:",
      "'our-issuer-key'",
      JSON.stringify(JSON.stringify(["registry-one", "registry-two"])),
      JSON.stringify(JSON.stringify(["redis-login", "redis-authority"])),
    ]) {
      expect(specs).toContain(text);
    }
  });

  it("the policy is installed as it stands, and with user namespaces one rule more", async () => {
    const policyName = "drover-sandbox-pods";
    const rules = async (values: string[]) => {
      const objects = await render([...evaluation, ...values]);
      const binding = find(objects, "ValidatingAdmissionPolicyBinding", policyName);
      expect(binding["spec"]).toEqual({ policyName, validationActions: ["Deny"] });
      const { spec } = find(objects, "ValidatingAdmissionPolicy", policyName) as unknown as {
        spec: { validations: { expression: string; message: string }[] };
      };
      return spec;
    };
    const sources = parseManifests(
      readFileSync("deploy/admission/sandbox-pod-policy.yaml", "utf8"),
    );
    const { spec } = find(sources, "ValidatingAdmissionPolicy", policyName) as unknown as {
      spec: { validations: object[] };
    };

    expect(await rules(["--set", "sandbox.userNamespaces=false"])).toEqual(spec);
    expect((await rules([])).validations.slice(0, -1)).toEqual(spec.validations);
    expect((await rules([])).validations.at(-1)?.expression).toContain(
      "object.spec.hostUsers == false",
    );
  });
});
