import { LiveClient } from "../../src/kube/live-client.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { customResourceDefinitions } from "../../src/kube/resources.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { startApiServer } from "../cluster/api-server.ts";
import { describeKubeClient } from "../contracts/kube-client.ts";
import { untilServed, widgetDefinition } from "./kube-widgets.ts";

describeKubeClient("LiveClient", async () => {
  const server = await startApiServer();
  const client = new LiveClient({
    config: { from: "file", path: server.kubeconfigPath },
    userAgent: "drover-test/1",
    clock: systemClock,
    rng: systemRng,
    metrics: createKubeMetrics(new Registry()).restClient,
    logger: silentLogger,
  });
  await client.create(customResourceDefinitions, widgetDefinition());
  await untilServed(client);
  // Afterwards its watch caches begin here, so that version 1 is too old.
  await server.restart();
  return {
    client,
    async close() {
      client.close();
      await server.stop();
    },
  };
});
