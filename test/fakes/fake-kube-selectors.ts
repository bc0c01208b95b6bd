import { plainObject } from "./fake-kube-patch.ts";

/** `a=b`, `a==b`, `a!=b`, `a`, `!a`, `a in (x,y)`, `a notin (x,y)`, joined by commas. */
export function labelMatcher(
  selector: string | undefined,
): (labels: Record<string, string>) => boolean {
  const parts = (selector ?? "").split(/,(?![^(]*\))/).filter((part) => part.trim() !== "");
  const rules = parts.map(labelRule);
  return (labels) => rules.every((rule) => rule(labels));
}

function labelRule(text: string): (labels: Record<string, string>) => boolean {
  const set = /^\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*$/.exec(text);
  if (set !== null) {
    const [, key = "", operator, list = ""] = set;
    const values = list.split(",").map((value) => value.trim());
    return (labels) => values.includes(labels[key] ?? "\0") === (operator === "in");
  }
  const [, key = "", operator, value = ""] =
    /^\s*([^!=\s]+)\s*(!=|==?)\s*(\S*)\s*$/.exec(text) ?? [];
  if (operator === "!=") return (labels) => labels[key] !== value;
  if (operator !== undefined) return (labels) => labels[key] === value;
  const name = text.trim();
  if (name.startsWith("!")) return (labels) => !(name.slice(1) in labels);
  return (labels) => name in labels;
}

/** `path=value` and `path!=value` on any field, joined by commas. */
export function fieldMatcher(selector: string | undefined): (object: unknown) => boolean {
  const rules = (selector ?? "")
    .split(",")
    .filter((part) => part !== "")
    .map((part) => {
      const [, path = "", operator, value] = /^(.+?)(!=|==?)(.*)$/.exec(part) ?? [];
      const pointer = `/${path.replaceAll(".", "/")}`;
      return (object: unknown) => {
        const found = plainObject.at(object, pointer) ?? "";
        const text = typeof found === "string" ? found : JSON.stringify(found);
        return (text === value) === (operator !== "!=");
      };
    });
  return (object) => rules.every((rule) => rule(object));
}
