import { describe, expect, it } from "@jest/globals";
import { array, assert, constantFrom, jsonValue, property, record, string } from "fast-check";
import type { KubeObject } from "../kube/objects.ts";
import { hasCode } from "../runtime/errors.ts";
import { parseManifests, validateManifest } from "./manifest.ts";

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (hasCode(error, "INPUT_INVALID")) return error.message;
    throw error;
  }
  return "";
}

const template = (spec: Record<string, unknown>): KubeObject => {
  const object = {
    apiVersion: "drover.dev/v1alpha1",
    kind: "SandboxTemplate",
    metadata: { name: "standard" },
    spec,
  };
  return object;
};

describe("parseManifests", () => {
  it("objects come in the order of their documents, empty documents are left out", () => {
    const text =
      "---\n---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: B\nmetadata: {name: b}\n";

    expect(parseManifests(text, "x.yaml").map(({ kind }) => kind)).toEqual(["A", "B"]);
  });

  it("a List stands for its items, which may be lists too", () => {
    const text = `
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
  - {apiVersion: v1, kind: A, metadata: {name: a}}
  - apiVersion: drover.dev/v1alpha1
    kind: AgentList
    items: [{apiVersion: v1, kind: B, metadata: {name: b}}]
`;

    expect(parseManifests(text, "x.yaml").map(({ kind }) => kind)).toEqual(["A", "B"]);
    expect(refusal(() => parseManifests("kind: List\nitems: [7]\n", "x.yaml"))).toContain(
      "x.yaml:1: items[0]: must be a Kubernetes object",
    );
  });

  it.each([
    {
      name: "text that is not YAML",
      text: "apiVersion: v1\nkind: [A\n",
      want: "x.yaml:3: not valid YAML",
    },
    {
      name: "a key that is there twice",
      text: "apiVersion: v1\nkind: A\nkind: B\nmetadata: {name: a}\n",
      want: "x.yaml:3: not valid YAML: Map keys must be unique",
    },
    {
      name: "a document that is no object",
      text: "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n- a\n",
      want: "x.yaml:5: must be a Kubernetes object",
    },
    {
      name: "an object without kind",
      text: "\napiVersion: v1\n",
      want: "x.yaml:2: kind: Required",
    },
    {
      name: "an object without name",
      text: "apiVersion: v1\nkind: A\nmetadata: {}\n",
      want: "x.yaml:1: metadata.name: Required value",
    },
    {
      name: "an alias that blows up",
      text: `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n`,
      want: "x.yaml:1: not valid YAML: Excessive alias count",
    },
  ])("$name is refused with its line", ({ text, want }) => {
    expect(refusal(() => parseManifests(text, "x.yaml"))).toContain(want);
  });

  it("words and times are read as kubectl reads them", () => {
    const text =
      "apiVersion: v1\nkind: A\nmetadata: {name: a}\nspec: {yes: yes, day: 2001-01-01, time: 12:30}\n";

    expect(parseManifests(text, "x.yaml")[0]).toMatchObject({
      spec: { true: true, day: "2001-01-01", time: "12:30" },
    });
  });

  it("any text gives objects or INPUT_INVALID, and nothing else", () => {
    const anyText = property(string({ unit: "grapheme", maxLength: 200 }), (text) => {
      expect(() => refusal(() => parseManifests(text, "x.yaml"))).not.toThrow();
    });

    assert(anyText, { numRuns: 300 });
  });
});

describe("validateManifest", () => {
  it("defaults are filled in, also inside an object that is partly given, and the input stays as it was", () => {
    const given = template({ image: "drover-sandbox:0.1.0", resources: { memory: "1Gi" } });

    expect(validateManifest(given, "x.yaml")).toMatchObject({
      spec: {
        resources: { cpu: "20m", memory: "1Gi", ephemeralStorage: "1Gi" },
        idleTimeoutSeconds: 300,
      },
    });
    expect(given).toEqual(
      template({ image: "drover-sandbox:0.1.0", resources: { memory: "1Gi" } }),
    );
  });

  it("all mistakes are listed at once with file and object", () => {
    const given = template({ imagePullPolicy: "Sometimes", startDeadlineSeconds: 1 });

    expect(refusal(() => validateManifest(given, "x.yaml"))).toBe(
      [
        'x.yaml: SandboxTemplate "standard" is invalid:',
        "  spec.image: Required value",
        '  spec.imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"',
        "  spec.startDeadlineSeconds: Invalid value: 1: spec.startDeadlineSeconds in body should be greater than or equal to 5",
      ].join("\n"),
    );
  });

  it("a kind of somebody else is refused and ours are named", () => {
    const given = { apiVersion: "v1", kind: "Pod", metadata: { name: "a" } };

    expect(refusal(() => validateManifest(given, "x.yaml"))).toContain(
      'v1 Pod "a" is of a kind that is not known here; accepted are Agent, AgentSession',
    );
  });

  it("a label that is not text is refused", () => {
    const given = parseManifests(
      "apiVersion: drover.dev/v1alpha1\nkind: Agent\nmetadata: {name: a, labels: {on: 1}}\nspec: {model: m}\n",
      "x.yaml",
    )[0];

    expect(refusal(() => validateManifest(given as KubeObject, "x.yaml"))).toContain(
      "must be of type string",
    );
  });

  it("any agent is accepted or refused with INPUT_INVALID, and nothing else", () => {
    const name = constantFrom("a", "b", "bash", "mcp__a", null, 1);
    const type = constantFrom("agent_toolset_20260401", "mcp_toolset", "custom");
    const tool = record(
      {
        type,
        name,
        mcpServerName: name,
        inputSchema: jsonValue(),
        configs: array(record({ name })),
      },
      { requiredKeys: ["type"] },
    );
    const server = record({ name, url: constantFrom("https://a.example", "ftp://a.example") });
    const agent = record(
      {
        model: constantFrom("m", ""),
        tools: array(tool),
        mcpServers: array(server),
        maxOutputTokens: jsonValue(),
      },
      { requiredKeys: ["model"] },
    );
    const anyAgent = property(agent, (spec) => {
      const given = { ...template(spec), kind: "Agent" };
      expect(() => refusal(() => validateManifest(given, "x.yaml"))).not.toThrow();
    });

    assert(anyAgent, { numRuns: 500 });
  });
});
