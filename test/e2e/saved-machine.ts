import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, rmSync, writeFileSync } from 'node:fs'
import { expect } from 'vitest'
import { qemuImg } from '../tools/qemu52.ts'
import { Machine, type MachineOptions } from '../tools/qemu52-machine.ts'

const MEMORY_MIB = 32
/** Over several objects of 4 MiB, since QEMU saves no pages of zeros. */
const CONTENT = { bytes: 11 << 20, address: 16 << 20 }

/** Where the VDI of the machine is reached, and room for files. */
export interface MachinePlace {
  sheep: string
  file(name: string): string
}

interface Condition {
  registers: string
  memory: string
}

/**
 * A machine of which snapshots are taken: `savevm` puts what is in memory behind the disk, into objects of its own.
 */
export class SavedMachine {
  #machine: Machine | undefined
  #later: Condition = { registers: '', memory: '' }

  async turnOn({ sheep }: MachinePlace, options: Partial<MachineOptions> = {}): Promise<Machine> {
    this.#machine = await Machine.start({ memoryMib: MEMORY_MIB, url: `sheepdog:${sheep}:vm`, ...options })
    return this.#machine
  }

  kill(): void {
    this.#machine?.kill()
  }

  /** Saves it as `one` and as `two`, goes back to both, and deletes `one`. */
  async saveAndGoBack(place: MachinePlace): Promise<void> {
    await qemuImg('create', `sheepdog:${place.sheep}:vm`, '32M')
    const content = place.file('content')
    writeFileSync(content, randomBytes(CONTENT.bytes))
    const vm = await this.turnOn(place, { content: { path: content, address: CONTENT.address } })

    await vm.io('write -P 7 0 64k')
    const atReset = await condition(vm, place)
    await vm.run('savevm one')
    await vm.io('write -P 9 0 64k')
    this.#later = atReset
    while (this.#later.registers === atReset.registers || this.#later.memory === atReset.memory) {
      await vm.run('cont')
      await vm.run('stop')
      this.#later = await condition(vm, place)
    }
    await vm.run('savevm two')
    expect(await snapshots(vm)).toEqual(['one', 'two'])

    await vm.run('loadvm one')
    expect(await condition(vm, place)).toEqual(atReset)
    await vm.io('read -P 7 0 64k')
    await vm.io('write -P 5 0 64k') // belongs to no snapshot
    await vm.run('loadvm two')
    expect(await condition(vm, place)).toEqual(this.#later)
    await vm.io('read -P 9 0 64k')
    await vm.run('delvm one')
    expect(await snapshots(vm)).toEqual(['two'])
    await vm.quit()
  }

  /** Another machine, later and perhaps elsewhere, goes back to `two`. */
  async goBackAgain(place: MachinePlace): Promise<void> {
    const vm = await this.turnOn(place)
    await vm.io('write -P 3 0 64k')
    await vm.run('loadvm two')
    expect(await condition(vm, place)).toEqual(this.#later)
    await vm.io('read -P 9 0 64k')
    await expect(vm.run('loadvm one')).rejects.toThrow(/Error/)
    await vm.quit()
  }
}

/** What a stopped machine was about to do: its registers, and all of its memory. */
async function condition(stopped: Machine, { file }: MachinePlace): Promise<Condition> {
  const path = file('memory')
  await stopped.run(`pmemsave 0 ${MEMORY_MIB << 20} "${path}"`)
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  rmSync(path)
  return { registers: await stopped.run('info registers'), memory: hash.digest('hex') }
}

/** Tags of the snapshots that hold at least the content of the memory. */
async function snapshots(running: Machine): Promise<string[]> {
  const lines = (await running.run('info snapshots')).matchAll(/^\S+ +(\w+) +([\d.]+) MiB /gm)
  return [...lines].flatMap(([, tag, mib]) => (Number(mib) * 2 ** 20 >= CONTENT.bytes ? [tag!] : []))
}
