import { readFile } from "node:fs/promises";
import type { KubeObject } from "../kube/objects.ts";
import type { SessionObjects } from "../operator/agent-session/resolve.ts";
import type {
  Agent,
  AgentSession,
  CredentialVault,
  HarnessPool,
  SandboxTemplate,
} from "../operator/kinds.ts";
import { AppError, codeOf } from "../runtime/errors.ts";
import type { PoolConfig } from "../sessions/session-log.ts";
import type { DataDirectory } from "./data-directory.ts";
import { parseManifests, validateManifest } from "./manifest.ts";

/** Namespace of every object of local mode that names none. */
export const LOCAL_NAMESPACE = "default";

interface Kinds {
  Agent: Agent;
  AgentSession: AgentSession;
  CredentialVault: CredentialVault;
  SandboxTemplate: SandboxTemplate;
}

/** The objects of some manifests, as the API server would hold them after `kubectl apply`. */
export class LocalObjects {
  readonly #objects = new Map<string, KubeObject>();

  static async load(files: readonly string[], data: DataDirectory): Promise<LocalObjects> {
    const loaded = new LocalObjects();
    for (const file of files) {
      for (const parsed of parseManifests(await readManifest(file), file)) {
        const object = validateManifest(parsed, file);
        const namespace = object.metadata.namespace ?? LOCAL_NAMESPACE;
        const { name } = object.metadata;
        const uid = data.uidOf({ kind: object.kind, namespace, name });
        const metadata = { ...object.metadata, namespace, uid, generation: 1 };
        loaded.#objects.set(`${object.kind}/${namespace}/${name}`, { ...object, metadata });
      }
    }
    return loaded;
  }

  sessions(): AgentSession[] {
    return this.#all("AgentSession");
  }

  /** Throws INTERNAL when it is not among them. */
  session(namespace: string, name: string): AgentSession {
    const found = this.#find("AgentSession", namespace, name);
    if (found === undefined) throw new AppError("INTERNAL", `session "${name}" vanished`);
    return found;
  }

  /** What a session may refer to; local mode has one pool, which serves every namespace. */
  around(session: AgentSession, pool: PoolConfig): SessionObjects {
    const namespace = session.metadata.namespace ?? LOCAL_NAMESPACE;
    const { agentRef, sandboxTemplateRef, vaultRefs = [] } = session.spec;
    const vaults = vaultRefs
      .map(({ name }) => this.#find("CredentialVault", namespace, name))
      .filter((vault) => vault !== undefined);
    return {
      session,
      installNamespace: LOCAL_NAMESPACE,
      agent: agentRef && this.#find("Agent", namespace, agentRef.name),
      template:
        sandboxTemplateRef && this.#find("SandboxTemplate", namespace, sandboxTemplateRef.name),
      vaults: new Map(vaults.map((vault) => [vault.metadata.name, vault])),
      pool: localPool(pool),
    };
  }

  #all<K extends keyof Kinds>(kind: K): Kinds[K][] {
    const found = [...this.#objects.values()].filter((object) => object.kind === kind);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- validated against its kind's schema
    return found as Kinds[K][];
  }

  #find<K extends keyof Kinds>(kind: K, namespace: string, name: string): Kinds[K] | undefined {
    return this.#all(kind).find(
      ({ metadata }) => metadata.namespace === namespace && metadata.name === name,
    );
  }
}

/** Stands for whichever pool a session names. */
function localPool(pool: PoolConfig): HarnessPool {
  return {
    apiVersion: "drover.dev/v1alpha1",
    kind: "HarnessPool",
    metadata: { name: pool.name, namespace: LOCAL_NAMESPACE, uid: pool.uid },
    spec: {
      replicas: 1,
      concurrency: 50,
      mcpCallTimeoutSeconds: 300,
      model: { baseUrl: "http://127.0.0.1" },
      allowedNamespaces: { from: "All" },
      partitions: pool.partitions,
      resources: { cpu: "1", memory: "1Gi" },
    },
    status: { code: pool.code },
  };
}

async function readManifest(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const why = codeOf(error) === "ENOENT" ? "there is no such file" : "it cannot be read";
    throw new AppError("INPUT_INVALID", `manifest "${file}": ${why}`);
  }
}
