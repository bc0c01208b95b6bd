import type {
  V1Container,
  V1EnvVar,
  V1PodSpec,
  V1Probe,
  V1SecurityContext,
  V1Volume,
  V1VolumeMount,
} from "@kubernetes/client-node";
import { ISSUER_AUDIENCE } from "../protocol/proxy-api.ts";
import { AUDIENCES } from "../protocol/tokens.ts";
import type {
  InstallSettings,
  SecretKey,
  StartedProcess,
  VaultAccess,
} from "./install-settings.ts";

/**
 * What one thing needs in a pod: variables of the container, the files they name, and where these
 * come from. No value of a secret stands in a variable.
 */
export interface PodPart {
  env: V1EnvVar[];
  mounts: V1VolumeMount[];
  volumes: V1Volume[];
}

const DIR = "/var/run/secrets/drover";
const TOKEN_SECONDS = 3600;
/** The vault sees this token, so it lives shortly (docs/design/security.md#vault). */
const VAULT_TOKEN_SECONDS = 600;

/** Redis, as the user of this process: another container of the pod has another password. */
export function redisPart({ redis }: InstallSettings, process: StartedProcess): PodPart {
  const { username, secret } = redis.users[process];
  return joined(
    variables({ DROVER_REDIS_URL: redis.url, DROVER_REDIS_USERNAME: username }),
    secretFile(`redis-${process}`, secret, {
      variable: "DROVER_REDIS_PASSWORD_FILE",
      file: "password",
    }),
    secretFile("redis-ca", redis.caSecret, { variable: "DROVER_REDIS_CA_FILE", file: "ca.crt" }),
  );
}

/** The issuer, and the token by which it knows whose pod asks. */
export function issuerPart({ issuer }: InstallSettings): PodPart {
  return joined(
    variables({
      DROVER_ISSUER_URL: issuer.url,
      DROVER_ISSUER_CERTIFICATE: issuer.certificate,
    }),
    tokenFile("issuer", ISSUER_AUDIENCE, TOKEN_SECONDS),
  );
}

/** The Kubernetes API: for Secrets that an app team lets this service account read. */
export function apiPart(): PodPart {
  const token = { serviceAccountToken: { expirationSeconds: TOKEN_SECONDS, path: "token" } };
  const authority = {
    configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] },
  };
  return {
    env: [],
    mounts: [readOnly("api-token", `${DIR}/api`)],
    volumes: [{ name: "api-token", projected: { sources: [token, authority] } }],
  };
}

/**
 * The vault. `ownIdentity`: whether this pod has something to read there as itself, such as the model
 * key; otherwise it has no token that the vault would take.
 */
export function vaultPart(vault: VaultAccess | undefined, ownIdentity: boolean): PodPart {
  if (vault === undefined) return NOTHING;
  return joined(
    variables({
      DROVER_VAULT_ADDRESS: vault.address,
      DROVER_VAULT_NAMESPACE: vault.namespace,
      DROVER_VAULT_KV_MOUNT: vault.kvMount,
      DROVER_VAULT_JWT_MOUNT: vault.jwtMount,
      DROVER_VAULT_SESSION_ROLE: vault.sessionRole,
      DROVER_VAULT_KUBERNETES_MOUNT: vault.kubernetesMount,
      DROVER_VAULT_POOL_ROLE: vault.poolRole,
      DROVER_VAULT_SESSION_IDENTITY: vault.sessionIdentity,
    }),
    secretFile("vault-ca", vault.caSecret, { variable: "DROVER_VAULT_CA_FILE", file: "ca.crt" }),
    ownIdentity || vault.sessionIdentity === "pod" ? vaultToken() : NOTHING,
  );
}

function vaultToken(): PodPart {
  return joined(
    variables({ DROVER_VAULT_TOKEN_FILE: `${DIR}/vault/token` }),
    tokenFile("vault", AUDIENCES.vault, VAULT_TOKEN_SECONDS),
  );
}

/** A key of a Secret as a file, and the variable that names it. */
export function secretFile(
  name: string,
  secret: SecretKey | undefined,
  as: { variable: string; file: string },
): PodPart {
  if (secret === undefined) return NOTHING;
  const items = [{ key: secret.key, path: as.file }];
  return {
    env: [{ name: as.variable, value: `${DIR}/${name}/${as.file}` }],
    mounts: [readOnly(name, `${DIR}/${name}`)],
    volumes: [{ name, secret: { secretName: secret.name, items } }],
  };
}

/** A token of the pod's service account for one audience, renewed by the kubelet. */
function tokenFile(name: string, audience: string, expirationSeconds: number): PodPart {
  const token = { audience, expirationSeconds, path: "token" };
  return {
    env: [],
    mounts: [readOnly(`${name}-token`, `${DIR}/${name}`)],
    volumes: [{ name: `${name}-token`, projected: { sources: [{ serviceAccountToken: token }] } }],
  };
}

/** Variables that have a value. */
export function variables(values: Readonly<Record<string, string | undefined>>): PodPart {
  const env = Object.entries(values).flatMap(([name, value]) =>
    value === undefined || value === "" ? [] : [{ name, value }],
  );
  return { env, mounts: [], volumes: [] };
}

/** A scratch folder, since the root file system is read-only. */
export function scratch(name: string): PodPart {
  return {
    env: [],
    mounts: [{ name, mountPath: "/tmp" }],
    volumes: [{ name, emptyDir: { sizeLimit: "64Mi" } }],
  };
}

export function podField(variable: string, fieldPath: string): PodPart {
  const fieldRef = { apiVersion: "v1", fieldPath };
  return { env: [{ name: variable, valueFrom: { fieldRef } }], mounts: [], volumes: [] };
}

export function joined(...parts: readonly PodPart[]): PodPart {
  return {
    env: parts.flatMap(({ env }) => env),
    mounts: parts.flatMap(({ mounts }) => mounts),
    volumes: parts.flatMap(({ volumes }) => volumes),
  };
}

const NOTHING: PodPart = { env: [], mounts: [], volumes: [] };

/** Of a container: its part, and the limits that Pod Security `restricted` wants of it. */
export function containerParts(
  part: PodPart,
  uid: number,
): Pick<V1Container, "env" | "volumeMounts" | "securityContext"> {
  return { env: part.env, volumeMounts: part.mounts, securityContext: restricted(uid) };
}

/** The volumes of a pod's containers, each once. */
export function volumesOf(...parts: readonly PodPart[]): V1Volume[] {
  const all = parts.flatMap(({ volumes }) => volumes);
  return [...new Map(all.map((volume) => [volume.name, volume])).values()];
}

/** What every pod of ours has in common. */
export function podDefaults(
  install: InstallSettings,
  selector: Record<string, string>,
): Pick<
  V1PodSpec,
  | "automountServiceAccountToken"
  | "enableServiceLinks"
  | "shareProcessNamespace"
  | "imagePullSecrets"
  | "securityContext"
  | "topologySpreadConstraints"
> {
  const pullSecrets = install.imagePullSecrets.map((name) => ({ name }));
  return {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    shareProcessNamespace: false,
    ...(pullSecrets.length === 0 ? {} : { imagePullSecrets: pullSecrets }),
    securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: "kubernetes.io/hostname",
        whenUnsatisfiable: "ScheduleAnyway",
        labelSelector: { matchLabels: selector },
      },
    ],
  };
}

export function httpProbe(
  path: string,
  port: number,
  timing: { periodSeconds: number; failureThreshold: number },
): V1Probe {
  return { httpGet: { path, port }, timeoutSeconds: 2, ...timing };
}

function restricted(uid: number): V1SecurityContext {
  return {
    runAsUser: uid,
    runAsGroup: uid,
    runAsNonRoot: true,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
    seccompProfile: { type: "RuntimeDefault" },
  };
}

function readOnly(name: string, mountPath: string): V1VolumeMount {
  return { name, mountPath, readOnly: true };
}
