import { networkInterfaces } from 'node:os'

/** The addresses that other hosts may reach this one by; those of loopback and of a single link are left out. */
export function hostAddresses(): string[] {
  return interfaces()
    .filter(({ internal, address }) => !internal && !/^(fe80:|169\.254\.)/i.test(address))
    .map(({ address }) => address)
}

/** Whether a peer, `host:port` as a connection has it or `unix`, is a process of this host: it has come by an address of its own. */
export function isOfThisHost(peer: string): boolean {
  if (peer === 'unix') return true
  const host = peer.slice(0, peer.lastIndexOf(':')).replace(/^\[(.*)\]$/, '$1')
  const address = host.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '')
  if (address === '::1' || /^127(\.\d{1,3}){3}$/.test(address)) return true
  return interfaces().some((each) => each.address === address)
}

function interfaces() {
  return Object.values(networkInterfaces()).flatMap((of) => of ?? [])
}
