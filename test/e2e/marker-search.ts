import { dumpRedis, kubectl, list, modelRequests } from "./cluster.ts";

/** Where a credential must never be found, as text; for `findIn`. */
export async function everywhere(namespaces: readonly string[]): Promise<Record<string, string>> {
  const kinds =
    "pods,deployments,replicasets,statefulsets,configmaps,events,agentsessions,credentialvaults,harnesspools";
  return {
    objects: await kubectl(["get", kinds, "-A", "-o", "json"]),
    redis: await dumpRedis(),
    requests: (await modelRequests()).map(({ text }) => text).join("\n"),
    logs: await allLogs(namespaces),
  };
}

async function allLogs(namespaces: readonly string[]): Promise<string> {
  const texts: string[] = [];
  for (const namespace of namespaces) {
    for (const { metadata } of await list("pods", namespace)) {
      texts.push(await kubectl(["logs", metadata.name, "-n", namespace, "--all-containers"]));
    }
  }
  return texts.join("\n");
}

/** The places that hold one of the markers, as it is or as a Secret or a Basic header would hold it. */
export function findIn(places: Record<string, string>, markers: readonly string[]): string[] {
  return markers.flatMap((marker, i) => {
    const forms = [marker, Buffer.from(marker).toString("base64").replace(/=+$/, "")];
    const holders = Object.entries(places).filter(([, text]) =>
      forms.some((form) => text.includes(form)),
    );
    return holders.map(([place]) => `marker ${i} in ${place}`);
  });
}

/** Files, environments of processes among them, in which a container can read one of the markers. */
export async function readableIn(
  container: readonly string[],
  markers: readonly string[],
): Promise<string[]> {
  // In halves, so that the search does not find its own command line.
  const halves = markers.flatMap((marker) => [marker.slice(0, 10), marker.slice(10)]);
  const found = await kubectl(["exec", ...container, "--", "node", "-e", SEARCH, ...halves]);
  return JSON.parse(found) as string[];
}

const SEARCH = `
  const { readdirSync, readFileSync, lstatSync } = require("node:fs");
  const halves = process.argv.slice(1);
  const markers = halves.flatMap((half, i) => (i % 2 === 0 ? [half + halves[i + 1]] : []));
  const found = [];
  const look = (path) => {
    try {
      const stat = lstatSync(path);
      if (stat.isDirectory()) for (const name of readdirSync(path)) look(path + "/" + name);
      else if (stat.isFile() && stat.size < 1e7) {
        const text = readFileSync(path, "latin1");
        if (markers.some((marker) => text.includes(marker))) found.push(path);
      }
    } catch {}
  };
  for (const root of ["/run", "/tmp", "/etc", "/home", "/root", "/workspace", "/var/lib/drover"]) look(root);
  for (const pid of readdirSync("/proc").filter((name) => /^\\d+$/.test(name))) {
    look("/proc/" + pid + "/environ");
    look("/proc/" + pid + "/cmdline");
  }
  process.stdout.write(JSON.stringify(found));
`;
