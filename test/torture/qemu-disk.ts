import { qemu52 } from '../tools/qemu52.ts'
import { type Host, PORTS } from './host.ts'

const NAME = 'by-qemu'
const NBD_PORT = 10810
const CONNECTIONS_MAX = 4

/**
 * A VDI that QEMU 5.2 has open with its driver for the Sheepdog protocol, on this host, whenever that is on. Resolves with the `host:port`
 * at which QEMU lets others write to it by NBD.
 */
export async function openByQemu(host: Host, size: string): Promise<string> {
  const { address } = host
  await host.collie('vdi', 'create', NAME, size)
  host.keepRunning('qemu', [
    qemu52('qemu-nbd'),
    ...['--format', 'raw', '--discard', 'unmap'],
    ...['--persistent', '--shared', String(CONNECTIONS_MAX), '--bind', address, '--port', String(NBD_PORT)],
    `sheepdog://${address}:${PORTS.sheep}/${NAME}`,
  ])
  return `${address}:${NBD_PORT}`
}
