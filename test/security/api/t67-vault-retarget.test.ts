import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { NAMESPACE, RELEASE, render } from "../../chart/helm.ts";
import { type ApiServer, startApiServer } from "../../cluster/api-server.ts";
import { eventually } from "../../eventually.ts";

/** T67: an entry of a CredentialVault is turned to a host of the attacker's, on a real API server. */

const TENANT = "team-a";
let api: ApiServer;

beforeAll(async () => {
  api = await startApiServer();
  for (const file of (await readdir("crds")).filter((name) => name.endsWith(".yaml"))) {
    await kubectlOk(["apply", "--server-side", "-f", `crds/${file}`]);
  }
  await kubectlOk(["create", "namespace", TENANT]);
  const roles = (await render(["-f", "charts/drover/values-eval.yaml"])).filter(
    ({ kind }) => kind === "ClusterRole",
  );
  await kubectlOk(
    ["apply", "-f", "-"],
    JSON.stringify({ apiVersion: "v1", kind: "List", items: roles }),
  );
  const vault = {
    apiVersion: "drover.dev/v1alpha1",
    kind: "CredentialVault",
    metadata: { name: "team", namespace: TENANT },
    spec: {
      entries: [
        {
          name: "tracker",
          mcpServerUrl: "https://mcp.tracker.example/mcp",
          vaultRef: { path: "tracker" },
        },
      ],
    },
  };
  await eventually("the vault", async () => {
    await kubectlOk(["apply", "-f", "-"], JSON.stringify(vault));
    return true;
  });
}, 120_000);

afterAll(async () => {
  await api?.stop();
});

async function kubectlOk(args: readonly string[], stdin?: string): Promise<string> {
  const result = await api.kubectl(args, stdin);
  if (result.code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${result.stderr}`);
  return result.stdout;
}

describe("an entry of a CredentialVault", () => {
  const patch = (operations: object[]) =>
    api.kubectl(
      `patch credentialvault team -n ${TENANT} --type=json --dry-run=server -p`
        .split(" ")
        .concat(JSON.stringify(operations)),
    );
  const entry = "/spec/entries/0";

  it.each([
    { path: `${entry}/mcpServerUrl`, value: "https://attacker.example/mcp" },
    { path: `${entry}/vaultRef/path`, value: "production-admin" },
    { path: `${entry}/vaultRef/key`, value: "other" },
    { path: `${entry}/vaultRef`, value: { path: "tracker2", key: "token" } },
  ])("is not turned by $path", async ({ path, value }) => {
    const { code, stderr } = await patch([{ op: "replace", path, value }]);

    expect(code).not.toBe(0);
    expect(stderr).toContain("must not be changed; create a new entry");
  });

  it("may have another header, and another entry beside it, but none of its name", async () => {
    const other = { mcpServerUrl: "https://b.example/mcp", vaultRef: { path: "b" } };
    const add = (name: string) =>
      patch([{ op: "add", path: "/spec/entries/-", value: { name, ...other } }]);

    expect((await patch([{ op: "replace", path: `${entry}/header`, value: "X-Key" }])).code).toBe(
      0,
    );
    expect((await add("b")).code).toBe(0);
    expect((await add("tracker")).stderr).toContain("Duplicate value");
  });
});

it("whoever has the chart's part of the role edit may not write vaults; the vault editor may", async () => {
  const bind = (user: string, role: string) =>
    kubectlOk(
      `create rolebinding ${user} -n ${TENANT} --user=${user} --clusterrole=${RELEASE}-${NAMESPACE}-${role}`.split(
        " ",
      ),
    );
  await bind("dev", "edit");
  await bind("lead", "vault-editor");
  const may = async (user: string, verb: string, kind: string) => {
    const question = ["auth", "can-i", verb, `${kind}.drover.dev`, "-n", TENANT, "--as", user];
    return (await api.kubectl(question)).stdout.trim();
  };
  await eventually(
    "the bindings",
    async () => (await may("dev", "create", "agentsessions")) === "yes",
  );

  for (const verb of ["create", "update", "patch", "delete"]) {
    expect(await may("dev", verb, "credentialvaults")).toBe("no");
    expect(await may("lead", verb, "credentialvaults")).toBe("yes");
  }
});
