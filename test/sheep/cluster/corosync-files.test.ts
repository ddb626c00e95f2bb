import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import {
  addCorosyncNode,
  corosyncConf,
  createCorosyncCluster,
  isPackagedCorosyncConf,
  readCorosyncConf,
} from '../../../src/sheep/cluster/corosync-files.ts'
import { SeededRandom } from '../../sim/random.ts'
import { requireCommand } from '../../tools/require-command.ts'
import { runCommand } from '../../tools/run-command.ts'

const create = (addresses: string[], name = 'test') => createCorosyncCluster({ name, addresses }, new SeededRandom(1))

describe('the files of corosync', () => {
  requireCommand('corosync', 'corosync')('are what corosync takes', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-corosync-'))
    onTestFinished(() => rmSync(directory, { recursive: true }))
    const [file, keyFile] = [path.join(directory, 'corosync.conf'), path.join(directory, 'authkey')]
    const check = () => runCommand(['corosync', '-t', '-c', file])
    const cluster = addCorosyncNode(create(['127.0.0.1', '198.51.100.2']), '198.51.100.3') // one is this host
    writeFileSync(keyFile, cluster.key)
    for (const isContained of [true, false]) {
      for (const logFile of [null, path.join(directory, 'log')]) {
        writeFileSync(file, corosyncConf(cluster, { nodeId: 1, keyFile, logFile, isContained }))
        await check()
      }
    }
    const place = { nodeId: null, keyFile, logFile: null, isContained: false }
    writeFileSync(file, corosyncConf(cluster, place).replace('knet', 'pigeons'))
    await expect(check()).rejects.toThrow() // so the check does look
  })

  it('encrypt, count votes, and name the nodes by ids that stay theirs', () => {
    const three = addCorosyncNode(create(['192.0.2.1', '192.0.2.2']), '192.0.2.9')
    const conf = corosyncConf(three, {
      nodeId: 1,
      keyFile: '/etc/corosync/authkey',
      logFile: null,
      isContained: false,
    })
    for (const line of ['crypto_cipher: aes256', 'crypto_hash: sha256', 'keyfile: /etc/corosync/authkey']) {
      expect(conf).toContain(`  ${line}\n`)
    }
    expect(conf).toContain('provider: corosync_votequorum')
    expect(conf).not.toMatch(/^\s*two_node/m)
    expect(conf).toContain('    ring0_addr: 192.0.2.9\n    nodeid: 3\n')
    expect(conf).not.toContain(three.key.toString('base64url'))
    const left = { ...three, nodes: three.nodes.filter(({ id }) => id !== 2) }
    expect(addCorosyncNode(left, '192.0.2.10').nodes.at(-1)).toEqual({ id: 4, address: '192.0.2.10' })
  })

  it('have another time to give up others on each node: two that do not reach each other must not do so at once', () => {
    const cluster = create(Array.from({ length: 60 }, (_, index) => `192.0.2.${index + 1}`))
    const place = { keyFile: 'key', logFile: null, isContained: false }
    const times = cluster.nodes.map(
      ({ id }) => /consensus: (\d+)/.exec(corosyncConf(cluster, { ...place, nodeId: id }))![1],
    )
    expect(new Set(times).size).toBe(60)
    for (const time of times) expect(Number(time)).toBeGreaterThanOrEqual(1200) // corosync takes no less than 1.2 times the token
  })

  it('are read again, unless somebody else has made them', () => {
    const { key: _key, ...cluster } = create(['192.0.2.1', 'fe80::1', 'host.example.org'])
    const conf = corosyncConf(create(['192.0.2.1', 'fe80::1', 'host.example.org']), {
      nodeId: 2,
      keyFile: 'key',
      logFile: null,
      isContained: true,
    })
    expect(readCorosyncConf(conf)).toEqual(cluster)
    expect(readCorosyncConf(`# Edited\n${conf}`)).toBeNull()
    expect(isPackagedCorosyncConf(conf)).toBe(false)
    const packaged =
      'totem {\n\tversion: 2\n\tcluster_name: debian\n}\nnodelist {\n\tnode {\n\t\tring0_addr: 127.0.0.1\n\t}\n}\n'
    expect(isPackagedCorosyncConf(packaged)).toBe(true)
  })

  it('have a key of their own', () => {
    const random = new SeededRandom(1)
    const keys = [1, 2].map(() => createCorosyncCluster({ name: 'test', addresses: [] }, random).key)
    expect(keys[0]!.equals(keys[1]!)).toBe(false)
  })

  it.each([
    [['192.0.2.1', '192.0.2.1'], 'test', /same address/],
    [['a b'], 'test', /"a b" is no address/],
    [['a\n}'], 'test', /is no address/],
    [['192.0.2.1'], 'te st', /is no name/],
    [['192.0.2.1'], '', /is no name/],
  ])('are not made of %j in %j', (addresses, name, problem) => {
    expect(() => create(addresses, name)).toThrow(problem)
  })
})
