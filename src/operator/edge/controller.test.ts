import { afterAll, expect, it } from "@jest/globals";
import { anInstall } from "../../../test/builders/install.ts";
import { anOperator } from "../../../test/builders/operator-on-fakes.ts";
import { unlessNotFound } from "../../kube/errors.ts";
import { type Deployment, deployments } from "../kinds.ts";
import { buildEdgeDeployment } from "./resources.ts";

const resources = { cpu: "50m", memory: "256Mi" };
const edge = { replicas: 3, inClusterServers: [], resources };
const ref = { namespace: "drover", name: "drover-edge" };

const stop = new AbortController();
afterAll(() => stop.abort());

/** An operator with these settings, when such a Deployment is there already. */
async function anOperatorWith(settings: typeof edge | undefined, existing?: Deployment) {
  const operator = anOperator(undefined, anInstall({ edge: settings }));
  if (existing !== undefined) await operator.kube.create(deployments, existing);
  void operator.manager.run(stop.signal);
  await operator.clock.advance(2_000);
  return { ...operator, found: () => unlessNotFound(operator.kube.get(deployments, ref)) };
}

it("the edge is made when the operator starts, and made again when somebody deletes it", async () => {
  const { found, kube, clock } = await anOperatorWith(edge);
  expect((await found())?.spec.replicas).toBe(3);

  await kube.delete(deployments, ref);
  await clock.advance(2_000);

  expect((await found())?.spec.replicas).toBe(3);
});

it("an edge that is turned off goes", async () => {
  const { found } = await anOperatorWith(undefined, buildEdgeDeployment(anInstall(), edge));

  expect(await found()).toBeUndefined();
});

it("an edge with other settings of a version before is changed", async () => {
  const before = buildEdgeDeployment(anInstall({ image: "drover:0" }), edge);

  const { found } = await anOperatorWith(edge, before);

  expect((await found())?.spec.template.spec.containers[0]?.image).toBe("drover:1");
});

it("a stranger's Deployment by that name is neither taken over nor deleted", async () => {
  const strangers = buildEdgeDeployment(anInstall({ image: "theirs:1" }), edge);
  delete strangers.metadata.labels;

  for (const settings of [edge, undefined]) {
    // oxlint-disable-next-line no-await-in-loop -- one operator after the other
    const { found } = await anOperatorWith(settings, strangers);
    // oxlint-disable-next-line no-await-in-loop -- one operator after the other
    expect((await found())?.spec.template.spec.containers[0]?.image).toBe("theirs:1");
  }
});
