import { type LookupAddress, type LookupOptions, lookup as systemLookup } from "node:dns";
import { isIP } from "node:net";
import { Agent, buildConnector } from "undici";
import { AppError } from "../runtime/errors.ts";
import { isMetadataAddress, isPublicAddress } from "./addresses.ts";
import { TIMEOUTS } from "./limits.ts";

/**
 * The only way out of the proxy (docs/design/security.md#addresses). Every connection resolves its
 * host, checks *all* addresses and connects to one that was checked; nothing resolves a second
 * time. Hosts the platform team lists may be private and speak plain http; metadata addresses are
 * refused for all. The returned agent follows no redirect.
 */
export interface DialOptions {
  /** `host:port` that may have private addresses and plain http. */
  listed: ReadonlySet<string>;
  /** Replaces the system's resolver; must answer every address of the host. */
  resolve?: Resolve;
}

export type Resolve = (
  host: string,
  callback: (error: Error | null, addresses: readonly LookupAddress[]) => void,
) => void;

export function createGuardedAgent(options: DialOptions): Agent {
  const resolve = options.resolve ?? resolveAll;
  const connectTo = (isListed: boolean) =>
    buildConnector({
      allowH2: false,
      timeout: TIMEOUTS.connectMs,
      rejectUnauthorized: true,
      lookup: guardedLookup(resolve, isListed),
    });
  const connectListed = connectTo(true);
  const connectPublic = connectTo(false);
  return new Agent({
    allowH2: false,
    pipelining: 1,
    headersTimeout: TIMEOUTS.headersMs,
    bodyTimeout: TIMEOUTS.bodyIdleMs,
    connect(target, callback) {
      const host = bareHost(target.hostname);
      const isListed = options.listed.has(authority(target.protocol, host, target.port));
      try {
        if (target.protocol !== "https:" && !isListed) throw plainHttpRefused(host);
        // Literal addresses never reach a lookup.
        if (isIP(host) !== 0) checkAddresses(host, [host], isListed);
      } catch (error) {
        callback(asError(error), null);
        return;
      }
      (isListed ? connectListed : connectPublic)(target, callback);
    },
  });
}

/** `host:port` with the protocol's default port filled in. */
export function authority(protocol: string, host: string, port: string): string {
  const defaultPort = protocol === "https:" ? "443" : "80";
  return `${bareHost(host)}:${port === "" ? defaultPort : port}`;
}

/** Throws ADDRESS_REFUSED unless every address may be dialled. */
function checkAddresses(host: string, addresses: readonly string[], isListed: boolean): void {
  const allowed = addresses.every((address) =>
    isListed ? !isMetadataAddress(address) : isPublicAddress(address),
  );
  if (allowed && addresses.length > 0) return;
  // The address itself is left out: the caller must not learn the cluster's DNS through us.
  throw new AppError(
    "ADDRESS_REFUSED",
    isListed
      ? `host "${host}" resolves to an address that is never dialled (metadata, link-local, unspecified or multicast)`
      : `host "${host}" has an address outside the public internet; ` +
          "list it in spec.inClusterServers of the HarnessPool if it is meant to be reached",
  );
}

function guardedLookup(resolve: Resolve, isListed: boolean) {
  return (
    host: string,
    options: LookupOptions,
    callback: (
      error: NodeJS.ErrnoException | null,
      address: string | LookupAddress[],
      family?: number,
    ) => void,
  ) => {
    resolve(host, (error, addresses) => {
      try {
        if (error !== null) throw error;
        checkAddresses(
          host,
          addresses.map(({ address }) => address),
          isListed,
        );
      } catch (problem) {
        callback(asError(problem), []);
        return;
      }
      const [first] = addresses;
      if (options.all === true || first === undefined) callback(null, [...addresses]);
      else callback(null, first.address, first.family);
    });
  };
}

function resolveAll(
  host: string,
  callback: (error: Error | null, addresses: readonly LookupAddress[]) => void,
): void {
  systemLookup(host, { all: true }, (error, addresses) => callback(error, addresses ?? []));
}

function plainHttpRefused(host: string): AppError {
  return new AppError(
    "ADDRESS_REFUSED",
    `host "${host}" is to be reached over plain http, which is for servers listed in ` +
      "spec.inClusterServers of the HarnessPool only; use https",
  );
}

function bareHost(host: string): string {
  return host.startsWith("[") ? host.slice(1, -1) : host;
}

function asError(error: unknown): Error {
  return Error.isError(error) ? error : new AppError("INTERNAL", "dialling failed");
}
