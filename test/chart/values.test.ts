import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { Ajv } from "ajv";
import { parse } from "yaml";
import { CHART, helm, NAMESPACE, RELEASE } from "./helm.ts";
import { readSchema, readValues, resolve, type Schema, withTable } from "./values-table.ts";

const root = readSchema();
const defaults: unknown = parse(readFileSync(join(CHART, "values.yaml"), "utf8"));

/** Every map of the schema with named keys, by its path in the values. */
function objectsOf(schema: Schema, path: string): { path: string; schema: Schema }[] {
  const own = resolve(root, schema);
  if (own?.properties === undefined) return [];
  return [
    { path, schema: own },
    ...Object.entries(own.properties).flatMap(([name, child]) =>
      objectsOf(child, path === "" ? name : `${path}.${name}`),
    ),
  ];
}

function at(path: string): unknown {
  return path
    .split(".")
    .filter((name) => name !== "")
    .reduce<unknown>(
      (value, name) => (value as Record<string, unknown> | undefined)?.[name],
      defaults,
    );
}

describe("schema and values", () => {
  it("the defaults fit the schema", () => {
    const validate = new Ajv({ strict: false }).compile(root);

    expect(validate(defaults) ? [] : validate.errors).toEqual([]);
  });

  it.each(objectsOf(root, ""))(
    "$path: the keys of the schema are those of values.yaml",
    (object) => {
      const definition = /\.(requests|limits)$|resources$/.test(object.path);
      if (definition && object.path !== "defaultPool.resources") return;

      expect(Object.keys(object.schema.properties ?? {}).toSorted()).toEqual(
        Object.keys(at(object.path) as object).toSorted(),
      );
    },
  );

  it.each(objectsOf(root, ""))("$path: a key that is not known is refused", (object) => {
    // An umbrella chart hands its own global keys to every chart in it.
    const open = object.path === "global";

    expect(object.schema.additionalProperties).toBe(open ? undefined : false);
  });

  it.each(readValues())("$path says what it is for", ({ text, schema }) => {
    expect(text).toMatch(/^[A-Z].*[.)]$/);
    expect(schema).toBeDefined();
  });

  it("the table in the README is that of values.yaml; run npm exec -- node test/chart/values-table.ts", () => {
    const readme = readFileSync(join(CHART, "README.md"), "utf8");

    expect(withTable(readme)).toBe(readme);
  });
});

describe("a mistake in the values", () => {
  const good = ["--set", "redis.url=redis://redis:6379"];
  const mistakes = [
    { set: "vlakey.enabled=true", says: "additional properties 'vlakey' not allowed" },
    { set: "redis.ulr=x", says: "at '/redis': additional properties 'ulr' not allowed" },
    {
      set: "operator.resources.limit.memory=1Gi",
      says: "additional properties 'limit' not allowed",
    },
    { set: "defaultPool.resources.limits=1Gi", says: "additional properties 'limits' not allowed" },
    { set: "defaultPool.allowedNamespaces=Some", says: "at '/defaultPool/allowedNamespaces'" },
    { set: "defaultPool.inClusterServers[0].host=a", says: "missing property 'port'" },
    { set: "operator.replicas=0", says: "at '/operator/replicas'" },
    { set: "operator.replicas=two", says: "at '/operator/replicas'" },
    { set: "redis.url=redis://user:secret@redis:6379", says: "at '/redis/url'" },
    {
      set: "redis.caSecret=authority",
      says: "redis.caSecret is for TLS, and redis.url (redis://redis:6379) does not begin with rediss://",
    },
    { set: "redis.commit=replicas:0", says: "at '/redis/commit'" },
    {
      set: "lease.renewMs=400",
      says: "lease.renewMs (400) must be less than half of lease.ttlMs (800)",
    },
    { set: "edge.replicas=0", says: "at '/edge/replicas'" },
    { set: "edge.inClusterServers[0].host=git", says: "missing property 'port'" },
    { set: "vault.address=vault:8200", says: "at '/vault/address'" },
    { set: "vault.kvMount=/kv/", says: "at '/vault/kvMount'" },
    { set: "vault.sessionIdentity=none", says: "at '/vault/sessionIdentity'" },
    { set: "model.vaultPath=../other", says: "at '/model/vaultPath'" },
    {
      set: "model.vaultPath=pools/default/model",
      says: "model.vaultPath (pools/default/model) needs a vault: set vault.address",
    },
    {
      set: "model.vaultPath=a,model.existingSecret=b,vault.address=https://vault:8200",
      says: "model.existingSecret and model.vaultPath are both set: the model key is in one of the two",
    },
    { set: "metrics.podMonitor.interval=30", says: "at '/metrics/podMonitor/interval'" },
    { set: "image.digest=9f86", says: "at '/image/digest'" },
    { set: "valkey.password=with space", says: "at '/valkey/password'" },
    {
      set: "redis.users.issuer.username=x",
      says: "at '/redis/users': additional properties 'issuer' not allowed",
    },
    { set: "redis.users.edge.password=x", says: "additional properties 'password' not allowed" },
    {
      set: "redis.users.edge.existingSecretKey=a/b",
      says: "at '/redis/users/edge/existingSecretKey'",
    },
  ];

  it.each(mistakes)("$set is refused: $says", async ({ set, says }) => {
    const result = await helm(["template", RELEASE, CHART, "-n", NAMESPACE, ...good, "--set", set]);

    expect(result.stderr).toContain(says);
    expect(result.code).not.toBe(0);
  });

  it("no Redis at all is refused, and the message says what to give", async () => {
    const result = await helm(["template", RELEASE, CHART]);

    expect(result.stderr).toContain(
      "redis.url must be set: the address of Redis >= 7.0 or Valkey >= 8 (or valkey.enabled=true for an evaluation)",
    );
    expect(result.code).not.toBe(0);
  });

  it("a cluster that is too old is refused", async () => {
    const old = await helm(["template", RELEASE, CHART, ...good, "--kube-version", "1.31.4"]);
    const provider = ["--kube-version", "1.33.1-gke.100"];

    expect(old.stderr).toContain("chart requires kubeVersion: >=1.32.0-0");
    expect((await helm(["template", RELEASE, CHART, ...good, ...provider])).code).toBe(0);
  });

  it("a global key of an umbrella chart is none of our business", async () => {
    const result = await helm(["template", RELEASE, CHART, ...good, "--set", "global.other=1"]);

    expect(result.code).toBe(0);
  });
});
