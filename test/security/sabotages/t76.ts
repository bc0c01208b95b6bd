import type { Sabotage } from "../sabotage.ts";

const common = {
  case: "T76",
  file: "deploy/admission/operator-policy.yaml",
  test: "test/security/t76-operator-account.test.ts",
};

export const sabotages: readonly Sabotage[] = [
  {
    ...common,
    defence: "The operator makes only pods that a session owns",
    find: "&& variables.pod.metadata.ownerReferences.all(o, o.kind == 'AgentSession'",
    replace: "|| variables.pod.metadata.ownerReferences.all(o, o.kind == 'AgentSession'",
    name: "no AgentSession owns|deletes sandboxes",
  },
  {
    ...common,
    defence: "The operator makes only pods that are held to the policy of sandboxes",
    find: "&& variables.pod.metadata.labels['drover.dev/sandbox'] == 'true'",
    replace: "|| true",
    name: "without the sandbox label",
  },
  {
    ...common,
    defence: "The operator's Deployments run under the accounts of pools and of the edge",
    find: ": variables.spec.serviceAccountName.startsWith('drover-pool-'))",
    replace: ": true)",
    name: "under the operator's account",
  },
  {
    ...common,
    defence: "The operator's Deployments mount Secrets of their own only",
    find: "? v.secret.secretName in variables.secrets",
    replace: "? true",
    name: "in place of Redis' password",
  },
  {
    ...common,
    defence: "The operator mounts the issuer's key nowhere",
    find: "&& v.secret.secretName != variables.issuerSecret",
    replace: "",
    name: "the issuer's key",
  },
  {
    ...common,
    defence: "The harness of a pool holds no token",
    find: "|| c.volumeMounts.all(m, m.name in ['tmp', 'redis-harness', 'redis-ca']))",
    replace: "|| true)",
    name: "whose harness holds",
  },
  {
    ...common,
    defence: "Proxy and edge run the image of the installation",
    find: "c.name == 'harness' || c.image == variables.image",
    replace: "true",
    name: "runs another image",
  },
  {
    ...common,
    defence: "The operator's NetworkPolicies open the way to Drover only",
    find: "variables.peers.all(list, size(list) > 0 && list.all(p, !has(p.ipBlock)",
    replace: "variables.peers.all(list, true || list.all(p, !has(p.ipBlock)",
    name: "opens|lets every pod in",
  },
  {
    ...common,
    defence: "The operator does not change what a session is to do",
    find: "object.spec == oldObject.spec",
    replace: "'true' == 'true'",
    name: "to its owner",
  },
  {
    ...common,
    defence: "The operator's account is held to the policy of pods when it makes one",
    find: "operations: [CREATE, UPDATE, DELETE]\n        resources: [pods, pods/ephemeralcontainers]",
    replace: "operations: [UPDATE, DELETE]\n        resources: [pods, pods/ephemeralcontainers]",
    test: "test/security/api/t76-operator-account.test.ts",
    name: "no AgentSession owns",
  },
];
