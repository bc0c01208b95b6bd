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
    "2606:4700::5efe:169.254.169.254",
    "2606:4700::200:5efe:7f00:1",
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
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "no address",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "0:0:0:0:0:0:0:0",
    "224.0.0.1",
    "255.255.255.255",
    "ff02::1",
    "::ffff:0.0.0.0",
    "::ffff:a9fe:a9fe",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "::ffff:0:169.254.169.254",
    "::169.254.169.254",
    "::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "64:ff9b::0.0.0.0",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a9:fe:a9fe::",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "2002:a9fe:a9fe::",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::",
    "2001:0:808:808:0:0:5601:5601",
    "fd12::5efe:169.254.169.254",
    "fd12::200:5efe:a9fe:a9fe",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "::127.0.0.1",
  ])("never dials %s", (address) => {
    expect(isMetadataAddress(address)).toBe(true);
  });

  it.each([
    "10.1.2.3",
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "64:ff9b::10.1.2.3",
    "64:ff9b:1::10.1.2.3",
    "fd12::1",
    "fd12::a9fe:a9fe",
    "240.0.0.1",
    "8.8.8.8",
    "2606:4700::1111",
  ])("leaves %s to the platform team", (address) => {
    expect(isMetadataAddress(address)).toBe(false);
  });
});
