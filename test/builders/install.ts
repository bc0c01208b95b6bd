import type { InstallSettings } from "../../src/operator/install-settings.ts";

/** What the operator knows of a plain install in namespace `drover`: no edge, no vault, no passwords. */
export function anInstall(changes: Partial<InstallSettings> = {}): InstallSettings {
  return {
    namespace: "drover",
    image: "drover:1",
    imagePullPolicy: "IfNotPresent",
    imagePullSecrets: [],
    logLevel: "info",
    redis: {
      url: "redis://redis:6379",
      users: { harness: {}, proxy: {}, edge: {} },
      commit: "fsync",
    },
    lease: { ttlMs: 800, renewMs: 200 },
    issuer: { url: "https://issuer:7443", certificate: "-----BEGIN CERTIFICATE-----" },
    ...changes,
  };
}
