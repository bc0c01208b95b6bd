import { expect, it } from "@jest/globals";
import { Registry } from "../runtime/metrics.ts";
import { APPEND_OUTCOMES, createSessionLogMetrics } from "./metrics.ts";

it("every series is there with 0 before anything was appended", async () => {
  const registry = new Registry();

  createSessionLogMetrics(registry);

  const text = await registry.metrics();
  for (const outcome of APPEND_OUTCOMES) {
    expect(text).toContain(`drover_log_appends_total{outcome="${outcome}"} 0`);
  }
  for (const level of ["applied", "committed"]) {
    expect(text).toContain(`drover_log_append_duration_seconds_count{level="${level}"} 0`);
  }
  expect(text).toContain("drover_log_commit_wait_seconds_count 0");
});
