import type { KubeClient } from "../kube/client.ts";
import type { Controller } from "../kube/controller.ts";
import type { EventSink } from "../kube/event-recorder.ts";
import { objectKey } from "../kube/objects.ts";
import type { BindingReader, CredentialReportReader } from "../protocol/session-ports.ts";
import type { Jwks } from "../protocol/tokens.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Runnable } from "../runtime/group.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { CommitMode, OperatorLog } from "../sessions/session-log.ts";
import { createAgentController } from "./agent/controller.ts";
import { ChangeFeed } from "./agent-session/change-feed.ts";
import { AgentSessionController } from "./agent-session/controller.ts";
import { SessionDeletion } from "./agent-session/deletion.ts";
import { Erasures } from "./agent-session/erasures.ts";
import { LostLogs } from "./agent-session/lost-logs.ts";
import { SessionMemory } from "./agent-session/session-memory.ts";
import { SessionStart } from "./agent-session/session-start.ts";
import { StatusWriter } from "./agent-session/status-writer.ts";
import type { Caches } from "./caches.ts";
import { CredentialVaultController } from "./credential-vault/controller.ts";
import { EdgeController } from "./edge/controller.ts";
import { HarnessPoolController } from "./harness-pool/controller.ts";
import type { InstallSettings } from "./install-settings.ts";
import type { OperatorMetrics } from "./metrics.ts";
import { NamespaceIsolationController } from "./namespace-isolation/controller.ts";
import { SandboxAnswers } from "./sandbox/answers.ts";
import { SandboxController } from "./sandbox/controller.ts";
import { PodMemory } from "./sandbox/pod-memory.ts";
import { RequestFeed } from "./sandbox/request-feed.ts";
import { createSandboxTemplateController } from "./sandbox-template/controller.ts";
import { SandboxWaits } from "./sandbox-waits.ts";
import { StoreOutage } from "./store-outage.ts";

export interface OperatorDeps {
  client: KubeClient;
  caches: Caches;
  log: OperatorLog;
  /** Why the session store cannot be used now. */
  storeProblem: () => string | undefined;
  bindings: BindingReader;
  credentialReports: CredentialReportReader;
  events: EventSink;
  metrics: OperatorMetrics;
  clock: Clock;
  rng: Rng;
  logger: Logger;
  install: InstallSettings;
  commit: CommitMode;
  publicKeys: () => Jwks;
  userNamespaces: boolean;
}

/** The table of contents: every controller of the operator, and what runs beside them on the leader. */
export function createControllers(deps: OperatorDeps): {
  controllers: Controller[];
  leaderOnly: Runnable[];
} {
  const { client, caches, clock } = deps;
  const changes = createChangeFeed(deps);
  const lostLogs = new LostLogs({ ...deps, sessions: caches.sessions });
  const erasures = new Erasures({ ...deps, namespace: deps.install.namespace });
  const requests = new RequestFeed(deps);
  const waits = new SandboxWaits(deps);
  const outage = new StoreOutage({ problem: deps.storeProblem, sessions: caches.sessions, clock });
  const isolation = new NamespaceIsolationController({
    client,
    installNamespace: deps.install.namespace,
    edge: deps.install.edge !== undefined,
    sessions: caches.sessions,
    pods: caches.sandboxPods,
    policies: caches.policies,
    accounts: caches.accounts,
  });
  return {
    controllers: [
      createAgentController({ client, clock, objects: caches.agents }),
      createSandboxTemplateController({ client, clock, objects: caches.templates }),
      new CredentialVaultController({
        client,
        clock,
        vaults: caches.vaults,
        pools: caches.pools,
        reports: deps.credentialReports,
        installNamespace: deps.install.namespace,
        vaultConfigured: deps.install.vault !== undefined,
        edgeConfigured: deps.install.edge !== undefined,
      }),
      new HarnessPoolController({
        client,
        clock,
        log: deps.log,
        commit: deps.commit,
        install: deps.install,
        pools: caches.pools,
        deployments: caches.deployments,
        pods: caches.harnessPods,
      }),
      new EdgeController({ client, deployments: caches.deployments, install: deps.install }),
      createSessionController(deps, { changes, lostLogs, erasures, waits, outage }),
      isolation,
      createSandboxController(deps, { requests, isolation, waits }),
    ],
    leaderOnly: [
      { name: "state changes", run: (signal) => changes.run(signal) },
      outage,
      { name: "sandbox requests", run: (signal) => requests.run(signal) },
      { name: "lost logs", run: (signal) => lostLogs.run(signal) },
      { name: "logs to erase", run: (signal) => erasures.run(signal) },
    ],
  };
}

function createChangeFeed({ log, clock, logger, caches }: OperatorDeps): ChangeFeed {
  return new ChangeFeed({
    log,
    clock,
    logger,
    keyOf(ref) {
      const [session] = caches.sessions.byIndex("sessionId", ref.id);
      return session === undefined ? undefined : objectKey(session);
    },
  });
}

function createSessionController(
  deps: OperatorDeps,
  feeds: {
    changes: ChangeFeed;
    lostLogs: LostLogs;
    erasures: Erasures;
    waits: SandboxWaits;
    outage: StoreOutage;
  },
): Controller {
  const { changes, lostLogs, erasures, waits, outage } = feeds;
  const { client, caches, clock, log, rng, events, metrics, install } = deps;
  const memory = new SessionMemory();
  const status = new StatusWriter({ client, events, metrics, memory, clock });
  const references = { ...caches, client, installNamespace: install.namespace };
  const deletion = new SessionDeletion({
    client,
    log,
    events,
    clock,
    rng,
    pods: caches.sandboxPods,
    erasures,
    logger: deps.logger,
    forget(session, ref) {
      memory.forget(objectKey(session));
      if (ref !== undefined) changes.forget(ref.id);
    },
  });
  const start = new SessionStart({ ...references, log, status, memory, metrics, clock, rng });
  return new AgentSessionController({
    ...references,
    log,
    changes,
    lostLogs,
    waits,
    outage,
    start,
    deletion,
    status,
    memory,
    clock,
    rng,
  });
}

function createSandboxController(
  deps: OperatorDeps,
  parts: {
    requests: RequestFeed;
    isolation: NamespaceIsolationController;
    waits: SandboxWaits;
  },
): Controller {
  const { client, caches, log } = deps;
  return new SandboxController({
    client,
    log,
    requests: parts.requests,
    waits: parts.waits,
    bindings: deps.bindings,
    answers: new SandboxAnswers(deps),
    memory: new PodMemory(caches.sandboxPods),
    pods: caches.sandboxPods,
    sessions: caches.sessions,
    isolated: (namespace) => parts.isolation.isolated(namespace),
    publicKeys: deps.publicKeys,
    userNamespaces: deps.userNamespaces,
    clock: deps.clock,
  });
}
