import { describe, expect, it } from "@jest/globals";
import { isMetadataAddress, isPublicAddress } from "./addresses.ts";

describe("isPublicAddress", () => {
  it.each(["1.1.1.1", "104.18.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::64"])(
    "lets %s be dialled",
    (address) => {
      expect(isPublicAddress(address)).toBe(true);
    },
  );

  it.each([
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::",
    "2001:db8::1",
    "2001::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "",
    "localhost",
    "0x7f.1",
    "2130706433",
  ])("refuses %j", (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });
});

describe("isMetadataAddress", () => {
  it.each([
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "fe80::1%eth0",
    "no address",
  ])("knows %s", (address) => {
    expect(isMetadataAddress(address)).toBe(true);
  });

  it.each(["10.1.2.3", "127.0.0.1", "fd12::1"])("leaves %s to the platform team", (address) => {
    expect(isMetadataAddress(address)).toBe(false);
  });
});
