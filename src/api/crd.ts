import { type CrdSchema, crdSchema } from "./crd-schema.ts";
import { KINDS, type Kind, type PrinterColumn } from "./kinds.ts";
import { GROUP, LABELS, VERSION } from "./names.ts";

/** An apiextensions.k8s.io/v1 CustomResourceDefinition with one version. */
export interface CustomResourceDefinition {
  apiVersion: "apiextensions.k8s.io/v1";
  kind: "CustomResourceDefinition";
  metadata: { name: string; labels: Record<string, string> };
  spec: {
    group: string;
    scope: "Namespaced";
    names: {
      kind: string;
      listKind: string;
      plural: string;
      singular: string;
      shortNames: string[];
      categories: string[];
    };
    versions: {
      name: string;
      served: true;
      storage: true;
      subresources: { status: object; scale?: NonNullable<Kind["scale"]> };
      selectableFields?: { jsonPath: string }[];
      additionalPrinterColumns: readonly PrinterColumn[];
      schema: { openAPIV3Schema: CrdSchema };
    }[];
  };
}

export function buildCrd(kind: Kind): CustomResourceDefinition {
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: {
      name: `${kind.plural}.${GROUP}`,
      // CRDs stay behind an uninstall: whoever finds them can ask whose they are.
      labels: { [LABELS.name]: "drover", [LABELS.partOf]: "drover" },
    },
    spec: {
      group: GROUP,
      scope: "Namespaced",
      names: {
        kind: kind.kind,
        listKind: `${kind.kind}List`,
        plural: kind.plural,
        singular: kind.kind.toLowerCase(),
        shortNames: [kind.shortName],
        categories: ["drover"],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          subresources: { status: {}, ...(kind.scale && { scale: kind.scale }) },
          ...(kind.selectableFields && {
            selectableFields: kind.selectableFields.map((jsonPath) => ({ jsonPath })),
          }),
          additionalPrinterColumns: kind.columns,
          schema: { openAPIV3Schema: buildObjectSchema(kind) },
        },
      ],
    },
  };
}

/** The schema of a whole object, as it stands in the CRD. */
export function buildObjectSchema(kind: Kind): CrdSchema {
  return {
    type: "object",
    description: kind.description,
    required: ["spec"],
    properties: {
      apiVersion: { type: "string", description: "Version of the API: `drover.dev/v1alpha1`." },
      kind: { type: "string", description: `The kind: \`${kind.kind}\`.` },
      metadata: {
        type: "object",
        ...(kind.maxNameLength !== undefined && {
          properties: { name: { type: "string", maxLength: kind.maxNameLength } },
        }),
      },
      spec: crdSchema(kind.spec, ".spec"),
      // An object nobody has looked at reads as "in progress": kstatus compares generations only
      // when the status has one.
      status: { ...crdSchema(kind.status, ".status"), default: { observedGeneration: -1 } },
    },
  };
}

export function findKind(name: string): Kind | undefined {
  return KINDS.find(({ kind }) => kind === name);
}
