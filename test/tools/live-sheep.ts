import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { openSystemDisk } from '../../src/runtime/system-disk.ts'
import { runOperation } from '../../src/sheep/ops.ts'
import { createSheepServer, type SheepServer, type SheepServerStats } from '../../src/sheep/server.ts'
import { Sheep } from '../../src/sheep/sheep.ts'
import { createSocketTransport } from '../../src/vdi/socket-transport.ts'
import type { Transport } from '../../src/vdi/transport.ts'

const MIB = 1024 * 1024

/** A sheep on a directory of its own, with its door on a unix socket, as a node runs it. */
export class LiveSheep {
  readonly #directory = mkdtempSync(join(tmpdir(), 'collie-sheep-'))
  #sheep!: Sheep
  #server!: SheepServer
  #stop: () => Promise<void> = async () => {}

  static async start(): Promise<LiveSheep> {
    const live = new LiveSheep()
    await live.#open()
    return live
  }

  get sheep(): Sheep {
    return this.#sheep
  }

  /** That it knows of now. */
  get connections(): number {
    return this.#server.stats.connections
  }

  get door(): SheepServerStats {
    return this.#server.stats
  }

  /** Of its unix socket. */
  get address(): string {
    return join(this.#directory, 'sock')
  }

  async #open(): Promise<void> {
    const disk = openSystemDisk(join(this.#directory))
    const log = createLog('silent')
    const sheep = await Sheep.open({
      disk,
      clock: systemClock,
      random: systemRandom,
      log,
      address: '127.0.0.1:7000',
      zone: 0,
      segmentBytes: 16 * MIB,
      durability: 'flush',
      reserveBytes: 0,
      copies: 1,
      onFailed: (error) => {
        throw error
      },
    })
    const server = createSheepServer({
      network: systemNetwork,
      clock: systemClock,
      log,
      handle: (request, client, reply) => runOperation(sheep, request, client, reply),
      clientOpened: (client) => sheep.clientOpened(client),
      clientClosed: (client) => sheep.clientClosed(client),
      epoch: () => sheep.state.epoch,
    })
    await server.listen(this.address)
    this.#sheep = sheep
    this.#server = server
    this.#stop = async () => {
      await server.close({ graceMs: 1000 })
      await sheep.close()
      await disk.close()
    }
  }

  /** A transport over the unix socket. */
  dial(): Transport {
    return createSocketTransport({ network: systemNetwork, address: this.address })
  }

  /** A transport within the process. */
  call(): Transport {
    return {
      submit: (request, done) =>
        runOperation(this.#sheep, request, null, (reply) => done({ opcode: request.opcode, ...reply })),
      close: () => {},
    }
  }

  /** Stops it in order and starts another on the same directory. */
  async restart(): Promise<void> {
    await this.#stop()
    await this.#open()
  }

  async stop(): Promise<void> {
    await this.#stop()
    rmSync(this.#directory, { recursive: true })
  }
}
