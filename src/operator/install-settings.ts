import type { RedisProcess } from "../sessions/redis/users.ts";

/** What the operator hands on to the processes it starts: workers of pools and the edge. */
export interface InstallSettings {
  /** Namespace of the install, of every pool and of the edge. */
  namespace: string;
  /** The control-plane image. */
  image: string;
  imagePullPolicy: "Always" | "IfNotPresent" | "Never";
  imagePullSecrets: readonly string[];
  logLevel: string;
  redis: {
    url: string;
    /** Each process logs in as itself, and mounts its own password alone. */
    users: Readonly<Record<StartedProcess, RedisLogin>>;
    /** Where the authorities of a `rediss://` address are; the public ones when absent. */
    caSecret?: SecretKey | undefined;
    commit: string;
  };
  lease: { ttlMs: number; renewMs: number };
  issuer: { url: string; certificate: string };
  /** None: credentials come from Secrets of the cluster only. */
  vault?: VaultAccess | undefined;
  /** None: repositories cannot be cloned. */
  edge?: EdgeSettings | undefined;
}

/** Processes that run in pods of the operator's making. */
export type StartedProcess = Exclude<RedisProcess, "operator">;

export interface RedisLogin {
  /** Redis' default user when absent. */
  username?: string | undefined;
  /** Where the password is; none when absent. */
  secret?: SecretKey | undefined;
}

export interface SecretKey {
  name: string;
  key: string;
}

/** How proxies reach Vault or OpenBao. What is absent has the default of runtime/vault-settings.ts. */
export interface VaultAccess {
  address: string;
  /** Where the authorities of its certificate are; the public ones when absent. */
  caSecret?: SecretKey | undefined;
  namespace?: string | undefined;
  kvMount?: string | undefined;
  jwtMount?: string | undefined;
  sessionRole?: string | undefined;
  kubernetesMount?: string | undefined;
  poolRole?: string | undefined;
  /** As whom a proxy reads what belongs to a session: as the session, or (the fallback) as its own pod. */
  sessionIdentity: "session" | "pod";
}

export interface EdgeSettings {
  replicas: number;
  /** `host:port` of git servers with private addresses. */
  inClusterServers: readonly string[];
  resources: { cpu: string; memory: string };
}
