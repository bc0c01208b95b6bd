/**
 * What the proxy costs: the same tool call straight to an MCP server and through the sidecar, with
 * token check, policy, fresh lease, credential, redaction and audit on. Both arms take turns in one
 * run, so the machine's noise meets both; only ratios and differences count.
 *
 *   npm run bench:proxy
 *   npm run bench:proxy -- --rounds 20 --requests 2000 --seconds 2 --credentials 1,5,20
 *
 * Loopback only. The sidecar has one core to itself where there are two; client, MCP server, Redis and
 * issuer share the other. Prints; writes nothing.
 */
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { callRequest, post, RawConnection, type RequestForm } from "./http-load.ts";
import { CORES, cpuSeconds, leaveMeasuredCore } from "./processes.ts";
import { credentialOf, LEAK, TOOL } from "./proxy-protocol.ts";
import { type HeldSession, type ProxyRig, type Scenario, startProxyRig } from "./proxy-rig.ts";
import { percentile, spread } from "./statistics.ts";

const SESSIONS = 8;
const CONNECTIONS = 64;
const WARM_UP = 2000;
const PARAMS = { name: TOOL, arguments: { query: "what somebody wants to know", limit: 10 } };

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "12" },
    requests: { type: "string", default: "1000" },
    seconds: { type: "string", default: "2" },
    credentials: { type: "string", default: "1,5,20" },
  },
});
const rounds = Number(values.rounds);
const requests = Number(values.requests);
const seconds = Number(values.seconds);

let lastId = 1_000_000_000;

/** Sends one call and checks that the answer is the server's; a fast wrong answer is none. */
async function call(connection: RawConnection, form: RequestForm): Promise<void> {
  lastId += 1;
  const id = lastId;
  const { status, body } = await connection.send(callRequest(form, id, PARAMS));
  if (status !== 200 || !body.includes(`"id":${id},`) || !body.includes("found")) {
    throw new Error(`${form.path} answered ${status}: ${body.slice(0, 300)}`);
  }
}

/** Milliseconds of each call, one after the other. */
async function latencies(form: RequestForm, count: number): Promise<number[]> {
  const connection = await RawConnection.open(form.port);
  const samples: number[] = [];
  for (let done = 0; done < count; done += 1) {
    const start = performance.now();
    await call(connection, form);
    samples.push(performance.now() - start);
  }
  connection.close();
  return samples;
}

/** Calls in `seconds` over many connections, each with one in flight. */
async function throughput(forms: readonly RequestForm[]): Promise<number> {
  const [first] = forms;
  if (first === undefined) return 0;
  const connections = await Promise.all(
    Array.from({ length: CONNECTIONS }, () => RawConnection.open(first.port)),
  );
  let done = 0;
  const end = performance.now() + seconds * 1000;
  await Promise.all(
    connections.map(async (connection, index) => {
      const form = forms[index % forms.length] ?? first;
      while (performance.now() < end) {
        await call(connection, form);
        done += 1;
      }
      connection.close();
    }),
  );
  return done;
}

interface Arms {
  direct: RequestForm;
  /** One a session. */
  proxied: readonly RequestForm[];
}

async function armsOf(
  rig: ProxyRig,
  held: readonly HeldSession[],
  { kind }: Scenario,
): Promise<Arms> {
  const tokens = await Promise.all(held.map((session) => rig.token(session)));
  const { port } = rig.proxy;
  return {
    direct: { port: rig.upstream.port, path: `/${kind}/0`, token: credentialOf(0) },
    proxied: tokens.map((token) => ({ port, path: "/mcp/server-0", token })),
  };
}

/** Every credential is read and every list pinned; an answer with a credential in it loses it. */
async function warmUp({ direct, proxied }: Arms, { credentials }: Scenario): Promise<void> {
  for (const form of proxied) {
    const connection = await RawConnection.open(form.port);
    for (let index = 0; index < credentials; index += 1) {
      const path = `/mcp/server-${index}`;
      const list = { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} };
      await connection.send(post({ ...form, path }, list));
      await call(connection, { ...form, path });
    }
    lastId += 1;
    const params = { name: TOOL, arguments: { query: LEAK } };
    const { body } = await connection.send(callRequest(form, lastId, params));
    if (!body.includes("[redacted:") || body.includes(credentialOf(0))) {
      throw new Error(`redaction is not on: ${body.slice(-300)}`);
    }
    connection.close();
  }
  for (const form of [direct, ...proxied]) await latencies(form, WARM_UP / proxied.length);
}

interface Round {
  direct: number[];
  proxied: number[];
  directRate: number;
  rate: number;
  /** Microseconds of the sidecar's CPU a request. */
  cpuMicros: number;
  /** Of the sidecar's core. */
  busy: number;
}

async function runRound(rig: ProxyRig, arms: Arms, isOdd: boolean): Promise<Round> {
  const [one] = arms.proxied;
  if (one === undefined) throw new Error("no session");
  const round = { direct: [] as number[], proxied: [] as number[], directRate: 0 };
  let load = { rate: 0, cpuMicros: 0, busy: 0 };
  const directArm = async () => {
    round.direct = await latencies(arms.direct, requests);
    round.directRate = (await throughput([arms.direct])) / seconds;
  };
  const proxiedArm = async () => {
    round.proxied = await latencies(one, requests);
    const before = cpuSeconds(rig.proxy.pid);
    const done = await throughput(arms.proxied);
    const used = cpuSeconds(rig.proxy.pid) - before;
    load = { rate: done / seconds, cpuMicros: (used * 1e6) / done, busy: used / seconds };
  };
  for (const arm of isOdd ? [proxiedArm, directArm] : [directArm, proxiedArm]) await arm();
  return { ...round, ...load };
}

function report({ kind, credentials }: Scenario, all: readonly Round[]): void {
  const of = (arm: "direct" | "proxied", share: number) =>
    all.map((round) => percentile(round[arm], share));
  const added = (share: number) => {
    const direct = of("direct", share);
    return of("proxied", share).map((ms, index) => ms - (direct[index] ?? 0));
  };
  const ratio = all.map(
    ({ direct, proxied }) => percentile(proxied, 0.5) / percentile(direct, 0.5),
  );
  console.log(
    [
      "",
      `${kind}, ${credentials} credentials a session`,
      `  one connection   p50 direct   ${spread(of("direct", 0.5), 3)} ms`,
      `                   p50 proxied  ${spread(of("proxied", 0.5), 3)} ms, ratio ${spread(ratio, 1)}`,
      `                   p50 added    ${spread(added(0.5), 3)} ms      bar 0.5`,
      `                   p99 added    ${spread(added(0.99), 3)} ms      bar 2`,
      `  ${CONNECTIONS} connections   direct       ${spread(
        all.map(({ directRate }) => directRate),
        0,
      )} requests/s`,
      `                   proxied      ${spread(
        all.map(({ rate }) => rate),
        0,
      )} requests/s      bar 3000`,
      `                   of the core  ${spread(
        all.map(({ busy }) => busy * 100),
        0,
      )} %`,
      `                   CPU each     ${spread(
        all.map(({ cpuMicros }) => cpuMicros),
        0,
      )} µs, which is ${spread(
        all.map(({ cpuMicros }) => 1e6 / cpuMicros),
        0,
      )} requests a CPU second`,
    ].join("\n"),
  );
}

function scenarios(): Scenario[] {
  const [first = 1, ...more] = values.credentials.split(",").map(Number);
  return [
    { kind: "json", credentials: first },
    { kind: "sse", credentials: first },
    ...more.map((credentials) => ({ kind: "json" as const, credentials })),
  ];
}

function machine(): string {
  const load = loadavg().map((one) => one.toFixed(1));
  const pinned = CORES === undefined ? "nothing pinned" : "sidecar pinned to a core of its own";
  return `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? "CPU"}, load ${load.join(" ")}, ${pinned}`;
}

leaveMeasuredCore();
console.log(
  `${machine()}\n${rounds} rounds of ${requests} calls and ${seconds} s an arm; median (quartiles) of the rounds`,
);
const rig = await startProxyRig();
try {
  for (const scenario of scenarios()) {
    const held = await rig.hold(scenario, SESSIONS);
    await warmUp(await armsOf(rig, held, scenario), scenario);
    const all: Round[] = [];
    for (let round = 0; round < rounds; round += 1) {
      all.push(
        await runRound(rig, await armsOf(rig, held, scenario), round % 4 === 1 || round % 4 === 2),
      );
    }
    report(scenario, all);
  }
  console.log(`\n${machine()}`);
} finally {
  await rig.stop();
}
