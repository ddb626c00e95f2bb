import { randomUUID } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { NbdClient } from '../tools/nbd-client.ts'
import { PythonCommands } from '../tools/python-commands.ts'
import { requireCommands } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'

/**
 * The first hour of a user, told with the clients that people have: each test goes on where the one before it ended.
 */

vi.setConfig({ testTimeout: 120_000 }) // each openstack and cinder command logs in

const withClients = requireCommands({
  openstack: 'python3-openstackclient',
  cinder: 'python3-cinderclient',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  'qemu-io': 'qemu-utils',
  'qemu-img': 'qemu-utils',
  fio: 'fio',
  'mkfs.ext4': 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  debugfs: 'e2fsprogs',
})

const MIB = 1024 * 1024
const GIB = 1024 * MIB

let collie: Collie
let clients: PythonCommands
beforeAll(async () => {
  collie = await Collie.create()
  await collie.start()
  clients = new PythonCommands(await sourced(`${collie.dataDir}/openrc`))
})
afterAll(async () => {
  await clients?.close()
  await collie.dispose()
})
printLogOfFailures(() => collie)

/** The environment of a person who has sourced it. */
async function sourced(openrc: string): Promise<Record<string, string>> {
  const lines = await runCommand(['sh', '-c', '. "$0" && env', openrc])
  return Object.fromEntries([...lines.matchAll(/^(OS_\w+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]))
}

const openstack = (...words: string[]) => clients.run(['openstack', ...words])
const cinder = (...words: string[]) => clients.run(['cinder', '--os-volume-api-version', '3.54', ...words])

/** A row of the tables that cinder prints. */
function cell(table: string, property: string): string {
  const row = new RegExp(`^\\| ${property} +\\| (.*?) +\\|$`, 'm').exec(table)
  if (row === null) throw new Error(`no ${property} in\n${table}`)
  return row[1]!
}

async function createVolume(name: string, ...from: string[]): Promise<string> {
  const id = await openstack('volume', 'create', ...from, name, '-f', 'value', '-c', 'id')
  await untilStatus('volume', id, 'available')
  return id
}

/** Asks until the creation is over; each question takes a client part of a second, so there is no wait in between. */
async function untilStatus(kind: 'volume' | 'volume snapshot', id: string, wanted: string): Promise<void> {
  let status: string
  do status = await openstack(...kind.split(' '), 'show', id, '-f', 'value', '-c', 'status')
  while (status === 'creating')
  expect(status).toBe(wanted)
}

async function connect(volume: string, ...options: string[]): Promise<{ attachment: string; uri: string }> {
  const words = ['--connect', 'True', '--host', 'H', '--ip', '127.0.0.1', ...options, volume, randomUUID()]
  const table = await cinder('attachment-create', ...words)
  expect(cell(table, 'driver_volume_type')).toBe('nbd')
  return { attachment: cell(table, 'id'), uri: cell(table, 'uri') }
}

function qemuIo(uri: string, commands: readonly string[], ...options: string[]): Promise<string> {
  return runCommand(['qemu-io', ...options, '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri])
}

/** `host:port` and the name in a URI. */
function partsOf(uri: string): { address: string; name: string } {
  const { host, pathname } = new URL(uri)
  return { address: host, name: pathname.slice(1) }
}

describe('what a user sees', () => {
  let main: { attachment: string; uri: string }
  let copy: { attachment: string; uri: string }

  withClients('a volume is made, reserved, and connected over NBD', async () => {
    const id = await createVolume('v', '--size', '1')
    const reserved = await cinder('attachment-create', id, randomUUID())
    expect(cell(reserved, 'status')).toBe('reserved')
    expect(reserved).not.toContain('uri')
    await cinder('attachment-delete', cell(reserved, 'id'))

    main = await connect('v')
    expect(main.uri).toMatch(/^nbd:\/\/127\.0\.0\.1:\d+\/[0-9a-f]{48}$/)
    expect(partsOf(main.uri).address).toBe(collie.info.addresses.nbd)
    await cinder('attachment-complete', main.attachment)
    expect(await openstack('volume', 'show', 'v', '-f', 'value', '-c', 'status')).toBe('in-use')
  })

  withClients('the export is a disk of the right size, and nobody learns its name from the server', async () => {
    const [info] = JSON.parse(await runCommand(['nbdinfo', '--json', main.uri])).exports
    expect(info).toMatchObject({ 'export-size': GIB, is_read_only: false, can_flush: true, can_trim: true })
    const { address, name } = partsOf(main.uri)
    const listed = await runCommand(['nbdinfo', '--json', '--list', `nbd://${address}`])
    expect(JSON.parse(listed).exports).toEqual([])
    expect(listed).not.toContain(name)
    await expect(runCommand(['nbdinfo', `nbd://${address}/v`])).rejects.toThrow('No such file or directory')
  })

  withClients('the disk keeps what qemu-io and fio write to it', async () => {
    const commands = ['write -P 0xaa 100M 8M', 'write -P 0xbb 102401k 3k', 'discard 104M 1M', 'flush']
    await qemuIo(main.uri, commands)
    await qemuIo(main.uri, ['read -P 0xaa 100M 1k', 'read -P 0xbb 102401k 3k', 'read -P 0 104M 1M', 'read -P 0 0 1M'])
    await runCommand([
      ...['fio', '--name=verify', '--ioengine=nbd', `--uri=${main.uri}`, '--offset=512m', '--size=48m'],
      ...['--rw=randwrite', '--bsrange=512-128k', '--blockalign=512', '--iodepth=16'],
      ...['--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0'], // else it leaves a file behind
    ])
  })

  withClients('the disk holds a file system', async () => {
    const [content, image, copied] = ['content', 'image', 'copied'].map((name) => collie.file(name)) as [
      string,
      string,
      string,
    ]
    mkdirSync(content)
    const letter = 'dear reader\n'.repeat(100_000)
    writeFileSync(`${content}/letter`, letter)
    await runCommand(['mkfs.ext4', '-q', '-d', content, image, '64M'])
    await runCommand(['qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', image, main.uri])
    await runCommand(['nbdcopy', main.uri, copied])
    await runCommand(['e2fsck', '-f', '-n', copied])
    expect(await runCommand(['debugfs', '-R', 'cat /letter', copied])).toBe(letter.trim())
    await qemuIo(main.uri, ['read -P 0xaa 101M 3M']) // beyond the image
  })

  withClients('a snapshot of the attached volume stays as it was', async () => {
    await qemuIo(main.uri, ['write -P 0x11 200M 4M', 'flush'])
    const before = collie.file('before')
    await runCommand(['nbdcopy', main.uri, before])
    const created = await openstack('volume', 'snapshot', 'create', '--force', '--volume', 'v', 's', '-f', 'json')
    await untilStatus('volume snapshot', JSON.parse(created).id, 'available')
    await qemuIo(main.uri, ['write -P 0x22 200M 2M', 'write -P 0x33 900M 1M', 'discard 100M 1M', 'flush'])

    await createVolume('copy', '--snapshot', 's')
    copy = await connect('copy')
    expect(await runCommand(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', before, copy.uri])).toContain('identical')
    await qemuIo(copy.uri, ['write -P 0x44 202M 1M', 'flush'])
    await qemuIo(main.uri, [
      'read -P 0x22 200M 2M',
      'read -P 0x11 202M 2M',
      'read -P 0x33 900M 1M',
      'read -P 0 100M 1M',
    ])
    await qemuIo(copy.uri, [
      'read -P 0x11 200M 2M',
      'read -P 0x44 202M 1M',
      'read -P 0x11 203M 1M',
      'read -P 0 900M 1M',
    ])
  })

  withClients('kill -9 in the middle of writes takes nothing that was acknowledged, and no URI', async () => {
    const { address, name } = partsOf(main.uri)
    const client = await NbdClient.connect(address, name)
    const acknowledged: number[] = []
    const isSent = (block: number) => client.write(600 * MIB + block * 4096, blockOf(block)).then(() => block)
    let sent = 0
    const enough = new Promise<void>((resolve) => {
      const sendNext = (): Promise<void> =>
        isSent(sent++).then((block) => {
          acknowledged.push(block)
          if (acknowledged.length === 300) resolve()
          return sendNext()
        })
      for (let depth = 0; depth < 16; depth++) void sendNext().catch(() => {}) // ends with the connection
    })
    await enough
    await collie.kill('SIGKILL')
    await client.closed

    await collie.start()
    expect(cell(await cinder('attachment-show', main.attachment), 'uri')).toBe(main.uri)
    const again = await NbdClient.connect(address, name)
    for (const block of acknowledged) {
      expect((await again.read(600 * MIB + block * 4096, 4096)).equals(blockOf(block)), `block ${block}`).toBe(true)
    }
    await again.disconnect()
    await qemuIo(main.uri, ['read -P 0x22 200M 2M', 'write -P 0x55 200M 1M', 'flush', 'read -P 0x55 200M 1M'])
    await qemuIo(copy.uri, ['read -P 0x11 200M 2M', 'read -P 0x44 202M 1M'])
  })

  withClients('a read-only attachment refuses writes', async () => {
    await cinder('attachment-delete', copy.attachment)
    copy = await connect('copy', '--mode', 'ro')
    const [info] = JSON.parse(await runCommand(['nbdinfo', '--json', copy.uri])).exports
    expect(info).toMatchObject({ is_read_only: true })
    await qemuIo(copy.uri, ['read -P 0x44 202M 1M'], '-r')
    await expect(qemuIo(copy.uri, ['write 0 4k'])).rejects.toThrow('Permission denied')
    const { address, name } = partsOf(copy.uri)
    const client = await NbdClient.connect(address, name)
    await expect(client.write(0, blockOf(1))).rejects.toMatchObject({ code: 1 }) // EPERM
    await client.disconnect()
    await cinder('attachment-delete', copy.attachment)
  })

  withClients('deleting an attachment cuts its clients off for good', async () => {
    const { address, name } = partsOf(main.uri)
    const client = await NbdClient.connect(address, name)
    await client.write(0, blockOf(0))
    await cinder('attachment-delete', main.attachment)
    await client.closed
    await expect(NbdClient.connect(address, name)).rejects.toThrow()
    await expect(runCommand(['nbdinfo', main.uri])).rejects.toThrow('No such file or directory')
    expect(await openstack('volume', 'show', 'v', '-f', 'value', '-c', 'status')).toBe('available')
  })

  withClients('when all is deleted the store is sound and empty, and the process ends in peace', async () => {
    await openstack('volume', 'delete', 'copy')
    await openstack('volume', 'snapshot', 'delete', 's')
    while ((await openstack('volume', 'snapshot', 'list', '-f', 'value')) !== '');
    await openstack('volume', 'delete', 'v')
    while ((await openstack('volume', 'list', '-f', 'value')) !== '');
    expect(await collie.ask<Result<'vdi_list'>['vdis']>('vdi', 'list')).toEqual([])
    const audit = await collie.ask<Result<'audit'>>('cluster', 'audit')
    expect(audit).toMatchObject({ sound: true, checked: { objects: 0 }, findings: [] })
    expect(await collie.kill('SIGTERM')).toBe(0)
  })
})

/** 4 KiB that tell which block they are. */
function blockOf(number: number): Buffer {
  return Buffer.alloc(4096, `block ${number} `)
}
