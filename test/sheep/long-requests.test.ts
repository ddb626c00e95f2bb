import { expect, it } from 'vitest'
import { VdiClient } from '../../src/vdi/client.ts'
import type { Done } from '../../src/vdi/device.ts'
import { LiveSheep } from '../tools/live-sheep.ts'
import { mulberry32 } from '../tools/memory-device.ts'

const MIB = 1024 * 1024
const SLOTS = 6
const SLOT_BYTES = 3 * MIB

const done = (start: (tell: Done) => void): Promise<void> =>
  new Promise((resolve, reject) => start((error) => (error ? reject(error) : resolve())))

/** Requests long enough for memory that was another one's before, from several connections at once, of which some break in the middle. */
it('long reads and writes of many clients never get the bytes of one another', { timeout: 60_000 }, async () => {
  const live = await LiveSheep.start()
  const random = mulberry32(1)
  const below = (count: number) => Math.floor(random() * count)
  try {
    const clients = await Promise.all(
      [0, 1, 2].map(async (client) => {
        const vdis = new VdiClient(live.dial())
        const vid = await vdis.create(`vdi-${client}`, SLOTS * SLOT_BYTES)
        return { vid, device: await vdis.open(vid, { readOnly: false }) }
      }),
    )
    const fill = (client: number, slot: number, round: number) => 1 + ((client * 83 + slot * 13 + round * 7) % 255)
    const written = clients.map(() => Array<number>(SLOTS).fill(0))
    for (let round = 0; round < 12; round++) {
      const breaking = new VdiClient(live.dial())
      const stray = await breaking.open(clients[0]!.vid, { readOnly: true })
      const broken = done((tell) => stray.read(0, Buffer.alloc(SLOT_BYTES), tell)).catch(() => {})
      const work = clients.flatMap(({ device }, client) =>
        Array.from({ length: SLOTS }, async (_, slot) => {
          const lengthBytes = 64 * 1024 + 512 * below((SLOT_BYTES - 64 * 1024) / 512)
          if (random() < 0.5) {
            const value = fill(client, slot, round)
            await done((tell) => device.write(slot * SLOT_BYTES, Buffer.alloc(SLOT_BYTES, value), { fua: false }, tell))
            written[client]![slot] = value
          } else {
            const bytes = Buffer.alloc(lengthBytes, 0xee)
            await done((tell) => device.read(slot * SLOT_BYTES, bytes, tell))
            const expected = Buffer.alloc(lengthBytes, written[client]![slot])
            expect(bytes.equals(expected), `slot ${slot} of VDI ${client} in round ${round}`).toBe(true)
          }
        }),
      )
      if (random() < 0.5) breaking.close()
      await Promise.all(work)
      await broken
      breaking.close()
    }
  } finally {
    await live.stop()
  }
})
