import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterEach, expect, it } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie, printLogOfFailures, runCollie } from '../tools/collie.ts'
import { Verifier } from '../tools/verifier.ts'

const GIB = 1024 ** 3

let collie: Collie | undefined
let verifier: Verifier | undefined
printLogOfFailures(() => collie)
afterEach(async () => {
  await verifier?.kill()
  await collie?.dispose()
  verifier = undefined
  collie = undefined
})

type Disks = Result<'disk_list'>

const newDisk = (name: string) => {
  const directory = collie!.file(name)
  mkdirSync(directory)
  return directory
}

const stateOf = async (disk: string) =>
  (await collie!.ask<Disks['disks']>('node', 'disk', 'list')).find((found) => found.path === disk)

/** Asks until it is so. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo()));
}

async function writeTo(): Promise<{ api: CinderApi; attached: Awaited<ReturnType<CinderApi['attach']>> }> {
  const api = new CinderApi(`${collie!.dataDir}/openrc`)
  const volumeId = await api.createVolume({ size: 1 })
  await api.until('volume', volumeId, 'available')
  const attached = await api.attach(volumeId)
  verifier = new Verifier({ seed: 1, ledgerPath: collie!.file('ledger'), sizeBytes: GIB })
  expect(await verifier.run(attached)).toBe(true)
  return { api, attached }
}

const objectFiles = (disk: string) =>
  readdirSync(path.join(disk, 'obj'), { recursive: true }).filter((name) => /[0-9a-f]{16}/.test(String(name)))

it('a disk is plugged in, filled and unplugged under load; a kill in the middle is no matter', async () => {
  collie = await Collie.create('--journal-size-mib=16')
  await collie.start()
  const disk = newDisk('extra')
  await collie.ask('node', 'disk', 'plug', disk)
  const { attached } = await writeTo()
  await until(async () => ((await stateOf(disk))?.objects ?? 0) > 8 && objectFiles(disk).length > 4)
  const unplugging = collie.command('node', 'disk', 'unplug', disk)
  await until(async () => (await stateOf(disk))?.state !== 'ok')
  await collie.kill('SIGKILL')
  await unplugging
  await collie.start()
  expect(await verifier!.run(attached)).toBe(true)
  await until(async () => (await stateOf(disk)) === undefined)
  await verifier!.pause()
  expect(await verifier!.run(attached)).toBe(true)
  await verifier!.pause()
  expect(objectFiles(disk)).toEqual([])
  expect((await collie.ask<Result<'audit'>>('cluster', 'audit')).findings).toEqual([])
  expect((await collie.ask<{ path: string }>('node', 'disk', 'plug', disk)).path).toBe(disk)
}, 180_000)

it('a disk that goes away fails alone: the node goes on, says so, and forgets it when told', async () => {
  collie = await Collie.create('--journal-size-mib=16')
  const disk = newDisk('extra')
  await collie.start()
  await collie.ask('node', 'disk', 'plug', disk)
  const { api } = await writeTo()
  await until(async () => ((await stateOf(disk))?.objects ?? 0) > 4)
  rmSync(disk, { recursive: true })
  await until(async () => (await stateOf(disk))?.state === 'failed')
  await verifier!.kill()
  expect((await stateOf(disk))?.reason).toMatch(/not this disk any more/)
  expect(collie.tailOfLog()).toMatch(/a disk has failed and is taken out/)
  expect((await collie.ask<Result<'cluster_info'>>('cluster', 'info')).status).toBe('degraded')
  const volumeId = await api.createVolume({ size: 1 })
  await api.until('volume', volumeId, 'available')
  const attached = await api.attach(volumeId)
  verifier = new Verifier({ seed: 2, ledgerPath: collie.file('ledger-2'), sizeBytes: GIB })
  expect(await verifier.run(attached)).toBe(true)
  await verifier.pause()
  expect(await verifier.run(attached)).toBe(true)
  await verifier.pause()
  await collie.ask('node', 'disk', 'unplug', disk)
  expect(await stateOf(disk)).toBeUndefined()
  expect((await collie.ask<Result<'cluster_info'>>('cluster', 'info')).status).toBe('ok')
}, 180_000)

it('a start without one of its disks is refused with what to do, and so is a directory that cannot be one', async () => {
  collie = await Collie.create()
  const disk = newDisk('extra')
  await collie.start()
  await collie.ask('node', 'disk', 'plug', disk)
  const refusal = async (directory: string) => {
    const { code, err } = await collie!.command('node', 'disk', 'plug', directory)
    expect(code).not.toBe(0)
    return err
  }
  expect(await refusal(collie.file('nowhere'))).toMatch(/no such directory/)
  expect(await refusal(disk)).toMatch(/is a disk of this store already/)
  symlinkSync(disk, collie.file('link'))
  expect(await refusal(collie.file('link'))).toMatch(/is a disk of this store already/)
  mkdirSync(path.join(disk, 'inner'))
  expect(await refusal(path.join(disk, 'inner'))).toMatch(/it lies in/)
  rmSync(path.join(disk, 'inner'), { recursive: true })
  writeFileSync(collie.file('plain'), '')
  expect(await refusal(collie.file('plain'))).toMatch(/not a directory/)
  expect(await refusal(path.join(collie.dataDir, 'sheep'))).toMatch(/is a disk of this store already/)
  expect(await refusal(collie.dataDir)).toMatch(/lies in it/)
  const home = await collie.command('node', 'disk', 'unplug', path.join(collie.dataDir, 'sheep'))
  expect(home.err).toMatch(/cannot be unplugged/)

  expect(await collie.kill('SIGTERM')).toBe(0)
  rmSync(disk, { recursive: true })
  await expect(collie.start()).rejects.toThrow(/--without-disks=/)
  const listed = await runCollie('config', 'show', `--without-disks=${disk}`)
  expect(listed.out).toContain(disk)
}, 120_000)
