import { networkInterfaces } from 'node:os'

/** The addresses that other hosts may reach this one by; those of loopback and of a single link are left out. */
export function hostAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((of) => of ?? [])
    .filter(({ internal, address }) => !internal && !/^(fe80:|169\.254\.)/i.test(address))
    .map(({ address }) => address)
}
