import { describe, expect, it } from "@jest/globals";
import { createProgram, type Processes } from "../../src/cli/program.ts";
import { METRIC_PROCESSES, metricsOfProcess } from "../../src/cmd/generate/process-metrics.ts";
import { harnessConfig } from "../../src/harness/config.ts";
import { cleanupConfig } from "../../src/operator/cleanup-config.ts";
import { operatorConfig } from "../../src/operator/config.ts";
import { proxyConfig } from "../../src/proxy/config.ts";
import { edgeConfig } from "../../src/proxy/edge/config.ts";
import { type ConfigSchema, configMeta } from "../../src/runtime/config.ts";
import { sandboxConfig } from "../../src/sandbox/config.ts";
import { runnerConfig } from "../../src/sandbox/runner-config.ts";
import { scriptedModelConfig } from "../../src/scripted-model/config.ts";
import {
  auditCheckpointsKey,
  bindingKey,
  credentialReportsKey,
  poolConfigKey,
  sessionKeys,
  toolPinsKey,
} from "../../src/sessions/keys.ts";

/**
 * What processes are called with and known by, frozen as the names in pins.test.ts are: dashboards,
 * alerts, ACLs of Redis, manifests and scripts hold them.
 */

/** One name a word; line breaks are for reading. */
const names = (text: string): string[] => text.trim().split(/\s+/);

/** Labels as in a query. What Node itself measures is not ours to promise. */
const metrics: Record<string, string[]> = {
  operator: names(`
    controller_runtime_active_workers{controller}
    controller_runtime_max_concurrent_reconciles{controller}
    controller_runtime_reconcile_errors_total{controller}
    controller_runtime_reconcile_panics_total{controller}
    controller_runtime_reconcile_time_seconds{controller}
    controller_runtime_reconcile_timeouts_total{controller}
    controller_runtime_reconcile_total{controller,result}
    controller_runtime_terminal_reconcile_errors_total{controller}
    drover_build_info{process,version}
    drover_issuer_tokens_total{outcome}
    drover_sandbox_lost_total{reason}
    drover_sandbox_provision_duration_seconds{hit}
    drover_session_end_total{reason}
    drover_session_oldest_waiting_seconds{reason}
    drover_sessions{state}
    drover_sessions_created_total{source}
    leader_election_master_status{name}
    rest_client_request_duration_seconds{verb,host}
    rest_client_request_retries_total{code,verb,host}
    rest_client_requests_total{code,method,host}
    workqueue_adds_total{name,controller}
    workqueue_depth{name,controller}
    workqueue_longest_running_processor_seconds{name,controller}
    workqueue_queue_duration_seconds{name,controller}
    workqueue_retries_total{name,controller}
    workqueue_unfinished_work_seconds{name,controller}
    workqueue_work_duration_seconds{name,controller}
  `),
  harness: names(`
    drover_build_info{process,version}
    drover_harness_active_sessions
    drover_harness_capacity
    drover_harness_claims_total{outcome}
    drover_harness_handover_duration_seconds
    drover_harness_memory_budget_bytes
    drover_harness_memory_held_bytes
    drover_harness_session_ends_total{outcome}
    drover_harness_state{state}
    drover_harness_takeovers_total{cause}
    drover_log_append_duration_seconds{level}
    drover_log_appends_total{outcome}
    drover_log_commit_wait_seconds
    drover_model_first_chunk_seconds
    drover_model_inflight
    drover_model_request_duration_seconds
    drover_model_requests_total{outcome,error_type}
    drover_model_retry_wait_seconds_total
    drover_model_tokens_total{type}
    drover_sandbox_wait_seconds{hit}
    drover_session_start_duration_seconds
    drover_tool_call_duration_seconds{tool}
    drover_tool_calls_total{tool,outcome}
    drover_turn_duration_seconds{outcome}
  `),
  proxy: names(`
    drover_build_info{process,version}
    drover_credential_reads_total{source,outcome}
    drover_proxy_audit_records_total{outcome}
    drover_proxy_redactions_total{role}
    drover_proxy_request_duration_seconds{role}
    drover_proxy_requests_total{role,destination,outcome}
    drover_proxy_server_requests_total
    drover_proxy_tool_drift_total
    drover_proxy_unserved_requests_total{reason}
    drover_vault_pod_identity
  `),
  edge: names(`
    drover_build_info{process,version}
    drover_credential_reads_total{source,outcome}
    drover_proxy_audit_records_total{outcome}
    drover_proxy_redactions_total{role}
    drover_proxy_request_duration_seconds{role}
    drover_proxy_requests_total{role,destination,outcome}
    drover_proxy_server_requests_total
    drover_proxy_tool_drift_total
    drover_proxy_unserved_requests_total{reason}
    drover_vault_pod_identity
  `),
  sandbox: names(`
    drover_build_info{process,version}
    drover_sandbox_call_duration_seconds{tool}
    drover_sandbox_calls_running
    drover_sandbox_calls_total{tool,outcome}
    drover_sandbox_output_bytes_total
    drover_sandbox_refused_total{code}
  `),
  "scripted-model": names(`
    drover_build_info{process,version}
    drover_scripted_model_requests_total{outcome}
  `),
};

describe("metrics", () => {
  it("the processes that serve them are the pinned ones", () => {
    expect(METRIC_PROCESSES).toEqual(Object.keys(metrics));
  });

  it.each(METRIC_PROCESSES)("those of the %s have their pinned names and labels", (process) => {
    const found = metricsOfProcess(process)
      .filter(({ name }) => !/^(process|nodejs)_/.test(name))
      .map(({ name, labels }) => (labels.length === 0 ? name : `${name}{${labels.join(",")}}`));

    expect(new Set(found)).toEqual(new Set(metrics[process]));
  });
});

it.each([
  {
    process: "operator",
    schema: operatorConfig,
    pinned: `
    DROVER_NAMESPACE DROVER_POD_NAME DROVER_IMAGE DROVER_IMAGE_PULL_POLICY
    DROVER_IMAGE_PULL_SECRETS DROVER_REDIS_URL DROVER_REDIS_USERNAME DROVER_REDIS_PASSWORD
    DROVER_REDIS_SECRET DROVER_REDIS_SECRET_KEY DROVER_REDIS_CA DROVER_REDIS_CA_SECRET
    DROVER_REDIS_HARNESS_USERNAME DROVER_REDIS_HARNESS_SECRET_KEY DROVER_REDIS_PROXY_USERNAME
    DROVER_REDIS_PROXY_SECRET_KEY DROVER_REDIS_EDGE_USERNAME DROVER_REDIS_EDGE_SECRET_KEY
    DROVER_REDIS_CA_SECRET_KEY DROVER_REDIS_COMMIT DROVER_LEASE_TTL_MS DROVER_LEASE_RENEW_MS
    DROVER_ISSUER_URL DROVER_ISSUER_SECRET DROVER_ISSUER_PORT DROVER_HEALTH_PORT DROVER_HOST
    DROVER_SANDBOX_USER_NAMESPACES DROVER_LEADER_ELECTION DROVER_KUBECONFIG DROVER_LOG_LEVEL
    DROVER_VAULT_ADDRESS DROVER_VAULT_CA_SECRET DROVER_VAULT_CA_SECRET_KEY DROVER_VAULT_NAMESPACE
    DROVER_VAULT_KV_MOUNT DROVER_VAULT_JWT_MOUNT DROVER_VAULT_SESSION_ROLE
    DROVER_VAULT_KUBERNETES_MOUNT DROVER_VAULT_POOL_ROLE DROVER_VAULT_SESSION_IDENTITY
    DROVER_EDGE_REPLICAS DROVER_EDGE_IN_CLUSTER_SERVERS DROVER_EDGE_CPU DROVER_EDGE_MEMORY
    `,
  },
  {
    process: "harness",
    schema: harnessConfig,
    pinned: `
    DROVER_REDIS_URL DROVER_REDIS_USERNAME DROVER_REDIS_PASSWORD DROVER_REDIS_CA
    DROVER_REDIS_COMMIT DROVER_POOL_CODE DROVER_POOL_PARTITIONS DROVER_WORKER_ID
    DROVER_CONCURRENCY DROVER_PROXY_URL DROVER_EDGE_URL DROVER_LEASE_TTL_MS DROVER_LEASE_RENEW_MS
    DROVER_POLL_MS
    DROVER_GRACE_MS DROVER_MCP_CALL_TIMEOUT_MS DROVER_HEALTH_HOST DROVER_HEALTH_PORT DROVER_LOG_LEVEL
    `,
  },
  {
    process: "proxy",
    schema: proxyConfig,
    pinned: `
    DROVER_PROXY_PORT DROVER_PROXY_HEALTH_PORT DROVER_PROXY_HEALTH_HOST DROVER_LOG_LEVEL
    DROVER_POD_UID DROVER_MODEL_BASE_URL DROVER_MODEL_API_KEY_FILE DROVER_MODEL_API_KEY_VAULT_PATH
    DROVER_MODEL_API_KEY_VAULT_KEY DROVER_ISSUER_URL DROVER_ISSUER_CERTIFICATE
    DROVER_ISSUER_TOKEN_FILE DROVER_REDIS_URL DROVER_REDIS_USERNAME
    DROVER_REDIS_PASSWORD DROVER_REDIS_CA DROVER_IN_CLUSTER_SERVERS DROVER_MCP_CALL_TIMEOUT_MS KUBERNETES_SERVICE_HOST
    KUBERNETES_SERVICE_PORT DROVER_API_TOKEN_FILE DROVER_API_CA_FILE DROVER_PROXY_MAX_IN_FLIGHT
    DROVER_PROXY_REQUESTS_PER_MINUTE
    DROVER_VAULT_ADDRESS DROVER_VAULT_CA DROVER_VAULT_NAMESPACE DROVER_VAULT_KV_MOUNT
    DROVER_VAULT_JWT_MOUNT DROVER_VAULT_SESSION_ROLE DROVER_VAULT_KUBERNETES_MOUNT
    DROVER_VAULT_POOL_ROLE DROVER_VAULT_TOKEN_FILE DROVER_VAULT_SESSION_IDENTITY
    `,
  },
  {
    process: "edge",
    schema: edgeConfig,
    pinned: `
    DROVER_EDGE_PORT DROVER_EDGE_HOST DROVER_PROXY_HEALTH_PORT DROVER_PROXY_HEALTH_HOST
    DROVER_LOG_LEVEL DROVER_POD_UID DROVER_ISSUER_URL DROVER_ISSUER_CERTIFICATE
    DROVER_ISSUER_TOKEN_FILE DROVER_REDIS_URL DROVER_REDIS_USERNAME DROVER_REDIS_PASSWORD
    DROVER_REDIS_CA DROVER_VAULT_ADDRESS DROVER_VAULT_CA DROVER_VAULT_NAMESPACE
    DROVER_VAULT_KV_MOUNT DROVER_VAULT_JWT_MOUNT DROVER_VAULT_SESSION_ROLE
    DROVER_VAULT_KUBERNETES_MOUNT DROVER_VAULT_POOL_ROLE DROVER_VAULT_TOKEN_FILE
    DROVER_VAULT_SESSION_IDENTITY DROVER_IN_CLUSTER_SERVERS KUBERNETES_SERVICE_HOST
    KUBERNETES_SERVICE_PORT DROVER_API_TOKEN_FILE DROVER_API_CA_FILE DROVER_PROXY_MAX_IN_FLIGHT
    DROVER_PROXY_REQUESTS_PER_MINUTE
    `,
  },
  {
    process: "sandbox",
    schema: sandboxConfig,
    pinned: `
    DROVER_PUBLIC_KEYS DROVER_SANDBOX_ID DROVER_SANDBOX_PORT DROVER_SANDBOX_HOST
    DROVER_WORKSPACE DROVER_JOURNAL_DIR DROVER_RUNNER_SOCKET DROVER_EXAMPLES_DIR
    DROVER_PARENT_PIPE PATH TMPDIR DROVER_LOG_LEVEL
    `,
  },
  {
    process: "runner of a sandbox",
    schema: runnerConfig,
    pinned: `
    DROVER_SANDBOX_ID DROVER_WORKSPACE DROVER_RUNNER_DIR DROVER_RUNNER_SOCKET DROVER_EXAMPLES_DIR
    PATH TMPDIR DROVER_LOG_LEVEL
    `,
  },
  {
    process: "scripted-model",
    schema: scriptedModelConfig,
    pinned: `
    DROVER_SCRIPTED_MODEL_SCRIPTS DROVER_SCRIPTED_MODEL_HOST DROVER_SCRIPTED_MODEL_PORT
    DROVER_SCRIPTED_MODEL_API_KEY DROVER_LOG_LEVEL
    `,
  },
  {
    process: "cleanup",
    schema: cleanupConfig,
    pinned: `
    DROVER_NAMESPACE DROVER_OPERATOR_DEPLOYMENT DROVER_KUBECONFIG DROVER_LOG_LEVEL
    `,
  },
])("the variables of the $process are the pinned ones", ({ schema, pinned }) => {
  const { shape }: ConfigSchema = schema;

  const found = Object.entries(shape).map(([name, field]) => configMeta(name, field).env);
  expect(new Set(found)).toEqual(new Set(names(pinned)));
});

it("the keys in Redis are the pinned ones", () => {
  const ref = { tenant: "team-a", id: "sesn_abcd0f_00000000000000000000000000" };
  const { member, ...keys } = sessionKeys(ref);
  const templates = Object.entries({
    ...keys,
    config: poolConfigKey("abcd"),
    bind: bindingKey("x"),
    credentials: credentialReportsKey(ref.tenant, "VAULT"),
    pins: toolPinsKey({ tenant: ref.tenant, revision: "REVISION", server: "SHA256" }),
    audit: auditCheckpointsKey,
  })
    .map(([name, key]) => `${name}=${key.replace(member, "MEMBER").replace("team-a", "TENANT")}`)
    .map((template) => template.replace("abcd", "POOL").replace("0f", "PP"));

  expect(member).toBe(`${ref.tenant}:${ref.id}`);
  expect(new Set(templates)).toEqual(
    new Set(
      names(`
    prefix=drover:{POOL.PP}:
    due=drover:{POOL.PP}:q:due
    bell=drover:{POOL.PP}:q:bell
    hands=drover:{POOL.PP}:q:hands
    hbell=drover:{POOL.PP}:q:hbell
    state=drover:{POOL.PP}:q:state
    sbell=drover:{POOL.PP}:q:sbell
    arch=drover:{POOL.PP}:q:arch
    workers=drover:{POOL.PP}:q:w
    alive=drover:{POOL.PP}:q:alive
    meta=drover:{POOL.PP}:MEMBER:m
    log=drover:{POOL.PP}:MEMBER:l
    idempotency=drover:{POOL.PP}:MEMBER:k
    preview=drover:{POOL.PP}:MEMBER:d
    payloads=drover:{POOL.PP}:MEMBER:b
    notify=drover:{POOL.PP}:MEMBER:n
    deltas=drover:{POOL.PP}:MEMBER:v
    index=drover:{POOL.PP}:TENANT:ix
    snapshot=drover:s:{POOL.PP}:MEMBER
    bound=drover:s:{POOL.PP}:MEMBER:x
    config=drover:cfg:POOL
    bind=drover:px:bind:x
    credentials=drover:px:cred:TENANT:VAULT
    pins=drover:px:pin:TENANT:REVISION:SHA256
    audit=drover:px:audit
      `),
    ),
  );
});

describe("the command line", () => {
  const exit = () => Promise.resolve(0);
  const processes: Processes = {
    operator: exit,
    harness: exit,
    proxy: exit,
    edge: exit,
    sandbox: exit,
    "scripted-model": exit,
    cleanup: exit,
    run: exit,
    credentials: exit,
    "audit verify": exit,
    done: () => {},
  };
  const program = createProgram(processes);

  it("sub-commands are called as ever", () => {
    expect(program.name()).toBe("drover");
    expect(program.commands.map((command) => command.name())).toEqual(
      names("run credentials operator harness proxy edge sandbox scripted-model cleanup audit"),
    );
  });

  it("the flags of `drover run` are the pinned ones, and those of no other command", () => {
    const flags = program.commands.flatMap((command) =>
      command.options.map((option) => `${command.name()} ${option.flags}`),
    );

    expect(flags).toEqual([
      "run -f, --file <manifest>",
      "run --data-dir <folder>",
      "run --model-url <url>",
      "run --model-key-file <file>",
      "run --credentials <file>",
      "run --allow-server <host:port>",
      "run --script <file>",
      "run -v, --verbose",
    ]);
  });
});
