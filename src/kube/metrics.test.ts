import { expect, it } from "@jest/globals";
import { Registry } from "../runtime/metrics.ts";
import { createKubeMetrics } from "./metrics.ts";

it("names and labels are those of controller-runtime and client-go", async () => {
  const registry = new Registry();
  createKubeMetrics(registry);
  const names = registry.getMetricsAsArray().map(({ name }) => name);

  expect(names.toSorted()).toEqual([
    "controller_runtime_active_workers",
    "controller_runtime_max_concurrent_reconciles",
    "controller_runtime_reconcile_errors_total",
    "controller_runtime_reconcile_panics_total",
    "controller_runtime_reconcile_time_seconds",
    "controller_runtime_reconcile_timeouts_total",
    "controller_runtime_reconcile_total",
    "controller_runtime_terminal_reconcile_errors_total",
    "leader_election_master_status",
    "rest_client_request_duration_seconds",
    "rest_client_request_retries_total",
    "rest_client_requests_total",
    "workqueue_adds_total",
    "workqueue_depth",
    "workqueue_longest_running_processor_seconds",
    "workqueue_queue_duration_seconds",
    "workqueue_retries_total",
    "workqueue_unfinished_work_seconds",
    "workqueue_work_duration_seconds",
  ]);
});
