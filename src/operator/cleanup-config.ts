import { z } from "zod";

/** Settings of the uninstall hook. */
export const cleanupConfig = z.object({
  namespace: z.string().min(1).meta({
    env: "DROVER_NAMESPACE",
    description: "Namespace in which Drover is installed.",
  }),
  operator: z.string().min(1).default("drover-operator").meta({
    env: "DROVER_OPERATOR_DEPLOYMENT",
    description: "Name of the operator's Deployment, which is scaled to 0 first.",
  }),
  kubeconfig: z.string().min(1).optional().meta({
    env: "DROVER_KUBECONFIG",
    description: "Kubeconfig file; the pod's own service account when absent.",
  }),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
});
