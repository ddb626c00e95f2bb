import { truncateSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Dog } from '../tools/dog.ts'
import { firstDifference } from '../tools/first-difference.ts'
import { leaveNothing } from '../tools/leave-nothing.ts'
import { NbdClient } from '../tools/nbd-client.ts'
import { OpenQemuIo, qemuClone, qemuImg, qemuIo, withQemu52 } from '../tools/qemu52.ts'

/**
 * QEMU 5.2's own driver for `sheepdog:` against a running node. What a test leaves is deleted after it.
 */

vi.setConfig({ testTimeout: 120_000 })

const MIB = 1024 * 1024

let collie: Collie
let dog: Dog
beforeAll(async () => {
  collie = await Collie.create('--auth=local')
  await collie.start()
  dog = new Dog(collie.info.addresses.sheep!)
})
afterAll(() => collie.dispose())
printLogOfFailures(() => collie)
leaveNothing(() => collie)

/** `sheepdog:HOST:PORT:VDI[:TAG]`. */
const url = (vdi: string, tag?: string) =>
  ['sheepdog', collie.info.addresses.sheep!, vdi, ...(tag === undefined ? [] : [tag])].join(':')

/** What QEMU says when VDI_LOCKED was answered. */
const BUSY = /VDI is already locked/

const CACHE_MODES = ['none', 'writeback'] as const

describe('images', () => {
  withQemu52('qemu-img makes them, and says of what size they are', async () => {
    await qemuImg('create', url('made'), '96M')
    const info = JSON.parse(await qemuImg('info', '--output=json', url('made')))
    expect(info).toMatchObject({ 'virtual-size': 96 * MIB, format: 'raw' })
    await expect(qemuImg('create', url('made'), '96M')).rejects.toThrow(/exist/i)
    await expect(qemuImg('info', url('unmade'))).rejects.toThrow(/No such file|No vdi/i)
    await dog.delete('made')
    await expect(qemuImg('info', url('made'))).rejects.toThrow(/No such file|No vdi/i)
  })

  withQemu52('raw and qcow2 go in, come out, and compare identical', async () => {
    const [raw, qcow2, back] = [collie.file('a.raw'), collie.file('a.qcow2'), collie.file('b.raw')]
    writeFileSync(raw, mixedContent(21 * MIB + 512))
    truncateSync(raw, 40 * MIB)
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2)

    await qemuImg('convert', '-f', 'raw', '-O', 'raw', raw, url('from-raw'))
    await qemuImg('convert', '-f', 'qcow2', '-O', 'raw', qcow2, url('from-qcow2'))
    for (const name of ['from-raw', 'from-qcow2']) {
      expect(await qemuImg('compare', '-f', 'raw', '-F', 'raw', raw, url(name))).toContain('identical')
    }
    await qemuImg('convert', '-f', 'raw', '-O', 'raw', url('from-qcow2'), back)
    expect(await qemuImg('compare', '-f', 'raw', '-F', 'raw', raw, back)).toContain('identical')
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', url('from-raw'), back)
    expect(await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', raw, back)).toContain('identical')

    await qemuIo(url('from-raw'), ['write -P 7 20M 512'])
    const differing = qemuImg('compare', '-f', 'raw', '-F', 'raw', url('from-raw'), url('from-qcow2'))
    await expect(differing).rejects.toThrow('Content mismatch at offset 20971520')
  })

  withQemu52('a qcow2 image lives in a VDI', async () => {
    const image = collie.file('nest.qcow2')
    await qemuImg('create', '-f', 'qcow2', image, '32M')
    await qemuImg('convert', '-f', 'raw', '-O', 'raw', image, url('nest')) // QEMU cannot make it in place
    await qemuImg('resize', '-f', 'raw', url('nest'), '64M')
    await qemuIo(url('nest'), ['write -P 9 1M 9M', 'flush', 'read -P 9 1M 9M', 'read -P 0 10M 1M'], '-f', 'qcow2')
    expect(await qemuImg('check', '-f', 'qcow2', url('nest'))).toContain('No errors')
  })

  withQemu52('they are found by each form of a URL', async () => {
    await qemuImg('create', url('named'), '8M')
    await qemuIo(url('named'), ['write -P 5 0 4k'])
    await qemuImg('snapshot', '-c', 'tagged', url('named'))
    await qemuIo(url('named'), ['write -P 6 0 4k'])
    const address = collie.info.addresses.sheep!
    const working = [`sheepdog://${address}/named`, `sheepdog+tcp://${address}/named`]
    for (const uri of [...working, `sheepdog+unix:///named?socket=${collie.dataDir}/sock`]) {
      await qemuIo(uri, ['read -P 6 0 4k', 'write -P 6 4M 4k'])
    }
    for (const uri of working) {
      for (const which of ['tagged', '1']) await qemuIo(`${uri}#${which}`, ['read -P 5 0 4k', 'read -P 0 4M 4k'], '-r')
    }
    await expect(qemuIo(`${working[0]}#2`, ['read 0 4k'], '-r')).rejects.toThrow('Failed to find the requested tag')
  })

  withQemu52('they are not made in ways that there are not, and are in the others', async () => {
    for (const option of ['redundancy=3', 'redundancy=4:2', 'object_size=8M']) {
      await expect(qemuImg('create', '-f', 'sheepdog', '-o', option, url('odd'), '8M')).rejects.toThrow('Invalid error')
    }
    for (const option of ['redundancy=1', 'object_size=4M', 'preallocation=off']) {
      await qemuImg('create', '-f', 'sheepdog', '-o', option, url('odd'), '8M')
      await dog.delete('odd')
    }
  })

  withQemu52('they grow and do not shrink', async () => {
    await qemuImg('create', url('grown'), '8M')
    await qemuIo(url('grown'), ['write -P 1 0 8M'])
    await qemuImg('resize', '-f', 'raw', url('grown'), '40M')
    await qemuIo(url('grown'), ['read -P 1 0 8M', 'read -P 0 8M 32M', 'write -P 2 36M 4M', 'read -P 2 36M 4M'])
    await expect(qemuImg('resize', '-f', 'raw', '--shrink', url('grown'), '4M')).rejects.toThrow(/shrink/i)
    expect((await dog.inode('grown')).sizeBytes).toBe(40 * MIB)
  })

  withQemu52('many requests at a time', async () => {
    await qemuImg('create', url('busy'), '256M')
    const bench = (...words: string[]) =>
      qemuImg('bench', '-f', 'raw', '-t', 'none', '-c', '2000', '-s', '4096', '-S', '69632', ...words, url('busy'))
    await bench('-w', '-d', '16', '--pattern=85')
    await bench('-w', '-d', '64', '--pattern=85', '--flush-interval=100')
    await bench('-d', '32')
    await qemuIo(url('busy'), ['read -P 85 0 4k', 'read -P 85 69632 4k', 'read -P 0 4k 65536'])
  })

  withQemu52('the unix socket is as good', async () => {
    await qemuImg('create', url('near'), '8M')
    const local = `sheepdog+unix:///near?socket=${collie.dataDir}/sock`
    await qemuIo(local, ['write -P 3 3M 2M', 'flush'])
    await qemuIo(url('near'), ['read -P 3 3M 2M', 'read -P 0 5M 3M'])
  })
})

describe('reading and writing', () => {
  for (const cache of CACHE_MODES) {
    withQemu52(`qemu-io reads what it wrote, with cache=${cache}`, async () => {
      const name = `io-${cache}`
      await qemuImg('create', url(name), '32M')
      const run = (...commands: string[]) => qemuIo(url(name), commands, '-t', cache)
      await run('write -P 0xaa 0 64k', 'write -P 0xbb 3M 6M', 'flush', 'read -P 0xaa 0 64k', 'read -P 0 64k 3008k')
      await run('write -P 0xcc 4194304 512', 'write -P 0xdd 8388096 1024', 'read -P 0xdd 8388096 1024')
      await run('read -P 0xcc 4194304 512', 'read -P 0xbb 4194816 4193280', 'read -P 0xbb 3M 1M', 'read -P 0 9M 23M')

      await run('write -z 4M 4M', 'write -z 3145728 1536', 'flush') // whole objects, and parts of blocks
      await run('read -P 0 4M 4194048', 'read -P 0 3145728 1536', 'read -P 0xbb 3147264 1047040')
      await run('discard 0 4M', 'discard 8389120 512') // the second is less than an object: QEMU leaves it alone
      await run('read -P 0 0 3M', 'read -P 0xbb 8389120 512', 'read -P 0xdd 8388608 512')
      expect((await dog.inode(name)).allocated()).not.toContain(0)

      await run('aio_write -P 1 16M 64k', 'aio_write -P 2 20M 64k', 'aio_write -P 3 16842752 64k', 'aio_flush')
      await run('read -P 1 16M 64k', 'read -P 2 20M 64k', 'read -P 3 16842752 64k')
    })
  }

  withQemu52('a flush is sent each time, and what was flushed survives the loss of the node', async () => {
    await qemuImg('create', url('flushed'), '16M')
    const io = await OpenQemuIo.open(url('flushed'), '-t', 'writeback')
    for (const pattern of [1, 2]) {
      await io.run(`write -P ${pattern} 2M 4M`)
      await io.run('flush')
      await collie.kill('SIGKILL')
      await collie.start()
      await io.run(`read -P ${pattern} 2M 4M`)
    }
    await io.close()
  })
})

describe('snapshots', () => {
  withQemu52('are made, listed, read, and deleted, and leave the rest as it was', async () => {
    await qemuImg('create', url('v'), '16M')
    await qemuIo(url('v'), ['write -P 1 0 8M'])
    await qemuImg('snapshot', '-c', 'one', url('v'))
    await qemuIo(url('v'), ['write -P 2 2M 4M'])
    await qemuImg('snapshot', '-c', 'two', url('v'))
    await qemuIo(url('v'), ['write -P 3 3M 64k', 'discard 4M 4M'])
    const listed = (await qemuImg('snapshot', '-l', url('v'))).split('\n').map((line) => line.trim().split(/\s+/))
    expect(listed.slice(2).map(([id, tag]) => `${id} ${tag}`)).toEqual(['1 one', '2 two'])

    const asOne = ['read -P 1 0 8M', 'read -P 0 8M 8M']
    const asTwo = ['read -P 1 0 2M', 'read -P 2 2M 4M', 'read -P 1 6M 2M', 'read -P 0 8M 8M']
    const asNow = ['read -P 1 0 2M', 'read -P 2 2M 1M', 'read -P 3 3M 64k', 'read -P 0 4M 12M']
    await qemuIo(url('v', 'one'), asOne, '-r')
    await qemuIo(url('v', '2'), asTwo, '-r') // by its number
    await qemuIo(url('v'), asNow)

    await qemuImg('snapshot', '-d', 'one', url('v', 'one'))
    expect(await qemuImg('snapshot', '-l', url('v'))).not.toContain('one')
    await qemuIo(url('v', 'two'), asTwo, '-r')
    await qemuIo(url('v'), asNow)
    await qemuImg('snapshot', '-d', 'two', url('v', 'two'))
    await qemuIo(url('v'), asNow)
  })

  withQemu52('deleted through the working VDI, as most people type it, do not take its data along', async () => {
    await qemuImg('create', url('small'), '4M')
    await qemuIo(url('small'), ['write -P 1 0 4M'])
    await qemuImg('snapshot', '-c', 'one', url('small'))
    await qemuIo(url('small'), ['write -P 2 0 4M'])
    await qemuImg('snapshot', '-d', 'one', url('small'))
    await qemuIo(url('small'), ['read -P 2 0 4M'])
    expect((await dog.list()).map(({ tag }) => tag)).not.toContain('one')
  })

  withQemu52('become clones, which can be written while the base is', async () => {
    await qemuImg('create', url('base'), '16M')
    await qemuIo(url('base'), ['write -P 1 0 8M'])
    await qemuImg('snapshot', '-c', 's', url('base'))
    await qemuClone(url('base', 's'), url('clone'))
    await qemuIo(url('clone'), ['read -P 1 0 8M', 'read -P 0 8M 8M', 'write -P 2 1M 1M', 'write -P 3 12M 1M'])
    await qemuIo(url('base'), ['write -P 4 0 512k'])
    await qemuIo(url('clone'), ['read -P 1 0 1M', 'read -P 2 1M 1M', 'read -P 1 2M 6M', 'read -P 3 12M 1M'])
    await qemuIo(url('base'), ['read -P 4 0 512k', 'read -P 1 512k 7680k', 'read -P 0 8M 8M'])
    await qemuIo(url('base', 's'), ['read -P 1 0 8M', 'read -P 0 8M 8M'], '-r')
    await dog.delete('base')
    await dog.delete('base', 's')
    await qemuIo(url('clone'), ['read -P 1 0 1M', 'read -P 2 1M 1M', 'read -P 1 2M 6M', 'read -P 3 12M 1M'])
  })

  withQemu52('are gone back to, and the VDI is still there', async () => {
    await qemuImg('create', url('back'), '16M')
    await qemuIo(url('back'), ['write -P 1 0 6M'])
    await qemuImg('snapshot', '-c', 's', url('back'))
    for (const pattern of [2, 3]) {
      await qemuIo(url('back'), [`write -P ${pattern} 4M 12M`])
      await qemuImg('snapshot', '-a', 's', url('back'))
      expect((await dog.list()).map(({ name, tag }) => `${name}:${tag}`).sort()).toEqual(['back:', 'back:s'])
      await qemuIo(url('back'), ['read -P 1 0 6M', 'read -P 0 6M 10M'])
    }
    await dog.delete('back', 's')
    await qemuIo(url('back'), ['read -P 1 0 6M', 'read -P 0 6M 10M'])
  })

  withQemu52('a write to an opened snapshot makes it the working VDI', async () => {
    await qemuImg('create', url('branch'), '8M')
    await qemuIo(url('branch'), ['write -P 1 0 8M'])
    await qemuImg('snapshot', '-c', 's', url('branch'))
    await qemuIo(url('branch'), ['write -P 2 0 8M'])
    await qemuIo(url('branch', 's'), ['read -P 1 0 8M', 'write -P 3 1M 1M', 'read -P 3 1M 1M', 'read -P 1 2M 6M'])
    await qemuIo(url('branch'), ['read -P 1 0 1M', 'read -P 3 1M 1M', 'read -P 1 2M 6M'])
    await qemuIo(url('branch', 's'), ['read -P 1 0 8M'], '-r')
  })

  for (const cache of CACHE_MODES) {
    withQemu52(`may be taken by dog under an open writer, with cache=${cache}`, async () => {
      const name = `live-${cache}`
      await qemuImg('create', url(name), '24M')
      const io = await OpenQemuIo.open(url(name), '-t', cache)
      await io.run('write -P 1 0 12M')
      await dog.snapshot(name, 'one')
      await io.run('write -P 2 1M 64k') // an object of before: QEMU is told, looks again, and copies on write
      await io.run('write -P 3 16M 64k') // a new one
      await dog.snapshot(name, 'two')
      await io.run('discard 4M 4M')
      await io.run('write -P 4 8M 64k')
      await dog.snapshot(name, 'three')
      await io.run('flush')
      for (const command of [
        ...['read -P 1 0 1M', 'read -P 2 1M 64k', 'read -P 0 4M 4M', 'read -P 4 8M 64k', 'read -P 1 8454144 4128768'],
        'read -P 3 16M 64k',
      ]) {
        await io.run(command)
      }
      await io.close()
      await qemuIo(url(name, 'one'), ['read -P 1 0 12M', 'read -P 0 12M 12M'], '-r')
      await qemuIo(url(name, 'two'), ['read -P 2 1M 64k', 'read -P 1 4M 8M', 'read -P 3 16M 64k'], '-r')
      await qemuIo(url(name, 'three'), ['read -P 0 4M 4M', 'read -P 4 8M 64k', 'read -P 3 16M 64k'], '-r')
      await qemuIo(url(name), ['read -P 0 4M 4M', 'read -P 4 8M 64k', 'read -P 3 16M 64k'])
    })
  }
})

describe('locks', () => {
  withQemu52('one writer at a time; closing lets the next one in', async () => {
    await qemuImg('create', url('lock'), '8M')
    const io = await OpenQemuIo.open(url('lock'))
    await expect(qemuIo(url('lock'), ['read 0 4k'])).rejects.toThrow(BUSY)
    await io.run('write -P 1 0 4k')
    await expect(qemuImg('info', url('lock'))).rejects.toThrow(BUSY)
    await io.close()
    await qemuIo(url('lock'), ['read -P 1 0 4k'])
  })

  withQemu52('a snapshot is open to all, before and after it was taken under a lock', async () => {
    await qemuImg('create', url('shown'), '8M')
    await qemuIo(url('shown'), ['write -P 1 0 4M'])
    await qemuImg('snapshot', '-c', 's', url('shown'))
    const io = await OpenQemuIo.open(url('shown'))
    const reader = await OpenQemuIo.open(url('shown', 's'), '-r')
    await qemuIo(url('shown', 's'), ['read -P 1 0 4M'], '-r')
    await qemuClone(url('shown', 's'), url('shown-clone'))
    await io.run('write -P 2 0 4M')
    await reader.run('read -P 1 0 4M')
    await reader.close()
    await expect(qemuIo(url('shown'), ['read 0 4k'])).rejects.toThrow(BUSY) // the reader let go of its own
    await io.close()
    await qemuIo(url('shown'), ['read -P 2 0 4M'])
    await qemuIo(url('shown-clone'), ['read -P 1 0 4M'])
  })

  withQemu52('who writes to a snapshot does not take the VDI from another one of the same host', async () => {
    await qemuImg('create', url('kept'), '8M')
    await qemuIo(url('kept'), ['write -P 1 0 4M'])
    await qemuImg('snapshot', '-c', 's', url('kept'))
    const machine = await OpenQemuIo.open(url('kept'))
    await machine.run('write -P 2 0 4M')
    const other = await OpenQemuIo.open(url('kept', 's'))
    await other.run('read -P 1 0 4M')
    await expect(other.run('write -P 3 0 4k')).rejects.toThrow('failed')
    await machine.run('write -P 4 4M 4k')
    await machine.run('read -P 2 0 4M')
    await other.close()
    await machine.close()
    await qemuIo(url('kept'), ['read -P 2 0 4M', 'read -P 4 4M 4k'])
    await qemuIo(url('kept', 's'), ['write -P 3 0 4k']) // nobody has it now: QEMU goes back to the snapshot
    await qemuIo(url('kept'), ['read -P 3 0 4k', 'read -P 1 4k 1M', 'read -P 0 4M 4k'])
  })

  withQemu52('a client that dies does not keep it, whether it wrote or not', async () => {
    const impatient = await Collie.create('--lock-grace-seconds=1')
    await impatient.start()
    const image = (vdi: string) => `sheepdog:${impatient.info.addresses.sheep!}:${vdi}`
    try {
      for (const vdi of ['written', 'idle', 'other']) await qemuImg('create', image(vdi), '8M')
      const written = await OpenQemuIo.open(image('written'))
      await written.run('write -P 1 0 4k')
      await written.run('flush')
      const idle = await OpenQemuIo.open(image('idle'))
      const other = await OpenQemuIo.open(image('other')) // a neighbour that goes on
      await other.run('write -P 2 0 4k')
      await Promise.all([written.kill(), idle.kill()])
      await untilOpens(image('written'), 'read -P 1 0 4k')
      await untilOpens(image('idle'), 'read -P 0 0 4k')
      await expect(qemuIo(image('other'), ['read 0 4k'])).rejects.toThrow(BUSY)
      await other.close()
    } finally {
      await impatient.dispose()
    }
  })

  withQemu52('dog breaks it, and what the first one then writes is refused', async () => {
    await qemuImg('create', url('broken'), '8M')
    const io = await OpenQemuIo.open(url('broken'))
    await io.run('write -P 1 0 4k')
    await dog.unlock('broken')
    const next = await OpenQemuIo.open(url('broken'))
    await next.run('write -P 2 0 4k')
    await expect(io.run('write -P 3 0 4k')).rejects.toThrow('failed')
    await next.run('read -P 2 0 4k')
    await next.close()
    await io.kill()
  })
})

describe('the loss of the node', () => {
  withQemu52('a client comes back by itself and goes on, and nobody takes its place meanwhile', async () => {
    await qemuImg('create', url('lasting'), '32M')
    const io = await OpenQemuIo.open(url('lasting'))
    await io.run('write -P 1 0 4M')
    for (const pattern of [2, 3]) {
      await collie.kill('SIGKILL')
      const written = io.run(`write -P ${pattern} 2M 4M`) // while it is away
      await collie.start()
      await written
      await expect(qemuIo(url('lasting'), ['read 0 4k'])).rejects.toThrow(BUSY)
      await io.run(`read -P ${pattern} 2M 4M`)
      await io.run('read -P 1 0 2M')
    }
    await io.run('aio_write -P 4 8M 1M')
    await io.run('aio_write -P 5 12M 1M')
    await collie.kill('SIGKILL') // some of it may have been answered
    await collie.start()
    await io.run('aio_flush')
    await io.run('read -P 4 8M 1M')
    await io.run('read -P 5 12M 1M')
    await io.close()
    await qemuIo(url('lasting'), ['read -P 1 0 2M', 'read -P 3 2M 4M', 'read -P 4 8M 1M', 'read -P 5 12M 1M'])
  })
})

describe('one VDI behind two doors', () => {
  withQemu52('NBD and Sheepdog show the same bytes, and take turns', async () => {
    const api = new CinderApi(`${collie.dataDir}/openrc`)
    const id = await api.createVolume({ name: 'both', size: 1 })
    await api.until('volume', id, 'available')
    const vdi = `volume-${id}`
    await qemuIo(url(vdi), ['write -P 0x11 0 6M', 'write -P 0x12 20M 512', 'discard 4M 4M', 'flush'])

    const connected = await api.attach(id)
    const nbd = await NbdClient.connect(connected.address, connected.name)
    expect(firstDifference(await nbd.read(0, 4 * MIB), Buffer.alloc(4 * MIB, 0x11))).toBeNull()
    expect(firstDifference(await nbd.read(4 * MIB, 4 * MIB), Buffer.alloc(4 * MIB))).toBeNull()
    expect(
      firstDifference(await nbd.read(20 * MIB, 1024), Buffer.concat([Buffer.alloc(512, 0x12), Buffer.alloc(512)])),
    ).toBeNull()
    await nbd.write(MIB + 512, Buffer.alloc(4096, 0x21))
    await nbd.trim(2 * MIB, MIB)
    await nbd.write(40 * MIB - 512, Buffer.alloc(1024, 0x22))
    await nbd.flush()
    await expect(qemuIo(url(vdi), ['write -P 0x31 0 4k'])).rejects.toThrow() // it is the attachment's
    expect(firstDifference(await nbd.read(0, 4096), Buffer.alloc(4096, 0x11))).toBeNull()
    await nbd.disconnect()
    await api.detach(connected.id)

    await qemuIo(url(vdi), [
      ...['read -P 0x11 0 1049088', 'read -P 0x21 1049088 4k', 'read -P 0x11 1053184 1043968', 'read -P 0 2M 1M'],
      ...['read -P 0x11 3M 1M', 'read -P 0 4M 16M', 'read -P 0x22 41942528 1024', 'read -P 0 41943552 4M'],
    ])
    const image = collie.file('both.raw')
    await qemuImg('convert', '-f', 'raw', '-O', 'raw', url(vdi), image)
    const again = await api.attach(id)
    expect(await qemuImg('compare', '-f', 'raw', '-F', 'raw', image, again.uri)).toContain('identical')
    await api.detach(again.id)
    await api.delete('volume', id)
    await api.untilGone('volume', id)
  })
})

/** A client that died is found out about in time; until then the VDI is busy. */
async function untilOpens(image: string, command: string): Promise<void> {
  for (;;) {
    const error = await qemuIo(image, [command]).then(
      () => null,
      (reason: Error) => reason,
    )
    if (error === null) return
    if (!BUSY.test(error.message)) throw error
  }
}

/** Data, zeros and text in pieces of all sizes. */
function mixedContent(lengthBytes: number): Buffer {
  const content = Buffer.alloc(lengthBytes)
  for (let at = 0, piece = 1; at < lengthBytes; piece++) {
    const length = (piece * 40_503) % 700_000
    if (piece % 3 !== 0) content.fill(`piece ${piece} `, at, Math.min(lengthBytes, at + length))
    at += length + 1
  }
  return content
}
