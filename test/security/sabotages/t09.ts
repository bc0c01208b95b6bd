import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t09-rebinding.test.ts";
const file = "src/proxy/dial.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T09",
    defence: "Every address of a name is checked, not one of them",
    file,
    find: "const allowed = addresses.every(",
    replace: "const allowed = addresses.some(",
    test,
    name: "in one answer",
  },
  {
    case: "T09",
    defence: "Only public addresses are dialled for hosts that are not listed",
    file,
    find: "isListed ? !isMetadataAddress(address) : isPublicAddress(address)",
    replace: "!isMetadataAddress(address)",
    test,
  },
  {
    case: "T09",
    defence: "Metadata addresses are refused for listed hosts too",
    file,
    find: "isListed ? !isMetadataAddress(address) : isPublicAddress(address)",
    replace: "isListed ? true : isPublicAddress(address)",
    test,
    name: "metadata service|every new connection",
  },
  {
    case: "T09",
    defence: "The address that was checked is the one that is dialled",
    file,
    find: "if (options.all === true || first === undefined) callback(null, [...addresses]);",
    replace:
      "if (options.all === true || first === undefined) " +
      "resolve(host, (_error, again) => callback(null, [...again]));",
    test,
    name: "at the address that was checked|only its first answer",
  },
  {
    case: "T09",
    defence: "An address in the place of a name is checked",
    file,
    find: "if (isIP(host) !== 0) checkAddresses(host, [host], isListed);",
    replace: "",
    test,
    name: "whole proxy",
  },
  {
    case: "T09",
    defence: "Addresses that carry an IPv4 address inside are not public",
    file: "src/proxy/addresses.ts",
    find: '    globalUnicast6.check(address, "ipv6") &&\n    !special.check(address, "ipv6") &&\n    carriedBy(address).length === 0\n',
    replace: "    true\n",
    test,
  },
  {
    case: "T09",
    defence: "An address is judged by the IPv4 address that it carries inside",
    file: "src/proxy/addresses.ts",
    find: " || carriedBy(plain).some((inner) => isNeverInside(inner))",
    replace: "",
    test,
    name: "metadata service|mean loopback",
  },
  {
    case: "T09",
    defence: "The unspecified address is never dialled: systems take it for loopback",
    file: "src/proxy/addresses.ts",
    find: 'never.addSubnet("0.0.0.0", 8, "ipv4");\n',
    replace: "",
    test,
    name: "mean loopback",
  },
];
