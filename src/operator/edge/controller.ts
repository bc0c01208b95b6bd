import { EDGE, FIELD_MANAGERS, LABELS } from "../../api/names.ts";
import type { KubeClient } from "../../kube/client.ts";
import {
  type Controller,
  type PassContext,
  type Watch,
  watchMapped,
} from "../../kube/controller.ts";
import { unlessNotFound } from "../../kube/errors.ts";
import type { Informer } from "../../kube/informer.ts";
import { type Outcome, settled } from "../../kube/outcome.ts";
import { applyOwned } from "../../kube/ownership.ts";
import type { InstallSettings } from "../install-settings.ts";
import { type Deployment, deployments } from "../kinds.ts";
import { MANAGER } from "../names.ts";
import { buildEdgeDeployment } from "./resources.ts";

export interface EdgeControllerDeps {
  client: Pick<KubeClient, "get" | "apply" | "delete">;
  /** Ours in the install namespace. */
  deployments: Informer<Deployment>;
  install: InstallSettings;
}

const OURS = { label: LABELS.managedBy, value: MANAGER };

/** The edge's Deployment: as the settings of the install say, or gone when they turn it off. */
export class EdgeController implements Controller {
  readonly name = "edge";
  readonly concurrency = 1;
  readonly watches: readonly Watch[];
  readonly #deps: EdgeControllerDeps;

  constructor(deps: EdgeControllerDeps) {
    this.#deps = deps;
    const own = `${deps.install.namespace}/${EDGE}`;
    this.watches = [
      (enqueue) => {
        enqueue.add(own);
        return () => {};
      },
      watchMapped(deps.deployments, (_, key) => (key === own ? [own] : [])),
    ];
  }

  async reconcile(key: string, { signal }: PassContext): Promise<Outcome> {
    const { client, install } = this.#deps;
    const { edge } = install;
    if (edge === undefined) {
      await this.#remove(key, signal);
      return settled;
    }
    const options = { fieldManager: FIELD_MANAGERS.children, force: true, signal };
    await applyOwned(client, deployments, buildEdgeDeployment(install, edge), OURS, options);
    return settled;
  }

  async #remove(key: string, signal: AbortSignal): Promise<void> {
    const found = this.#deps.deployments.get(key);
    if (found === undefined) return;
    const { uid } = found.metadata;
    const options = { signal, ...(uid === undefined ? {} : { uid }) };
    await unlessNotFound(this.#deps.client.delete(deployments, found.metadata, options));
  }
}
