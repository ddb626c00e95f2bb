/**
 * The NBD server of Collie over memory, for bench/nbd.ts: what the server itself costs.
 * Usage: tsx bench/nbd-memory-server.ts SOCKET MEBIBYTES
 */
import { createNbdServer } from '../src/exports/nbd/server.ts'
import { systemClock } from '../src/runtime/clock.ts'
import { createLog } from '../src/runtime/log.ts'
import { systemNetwork } from '../src/runtime/network.ts'
import { MemoryDevice, MemoryDisk } from '../test/tools/memory-device.ts'

const [socket, mebibytes] = process.argv.slice(2)
if (socket === undefined || mebibytes === undefined) throw new Error('usage: nbd-memory-server.ts SOCKET MEBIBYTES')

const disk = new MemoryDisk(Number(mebibytes) * 1024 * 1024)
const filling = Buffer.alloc(1024 * 1024, 0xa5)
for (let offset = 0; offset < disk.sizeBytes; offset += filling.length) disk.copyIn(offset, filling)

const server = createNbdServer({
  network: systemNetwork,
  clock: systemClock,
  log: createLog('warn'),
  exports: {
    lookup: async () => ({ id: 'bench', readOnly: false, open: async () => new MemoryDevice(disk) }),
  },
})
await server.listen(socket)
process.stdout.write('listening\n')
process.on('SIGTERM', () => void server.close().then(() => process.exit(0)))
