import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { clusterSetupCommands } from '../../src/cli/cluster-setup-commands.ts'
import { type CommandIo, EXIT } from '../../src/cli/command.ts'
import { runCli } from '../../src/cli/run.ts'
import { loadConfig } from '../../src/config.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { decodeKeyFile } from '../../src/sheep/cluster/cluster-secret.ts'
import { readCorosyncConf } from '../../src/sheep/cluster/corosync-files.ts'
import { SeededRandom } from '../sim/random.ts'

const PACKAGED =
  'totem {\n\tversion: 2\n\tcluster_name: debian\n}\nnodelist {\n\tnode {\n\t\tname: node1\n\t\tring0_addr: 127.0.0.1\n\t}\n}\n'

let root: string

beforeEach(() => {
  root = mkdtempSync(path.join(tmpdir(), 'collie-setup-'))
})

afterEach(() => rmSync(root, { recursive: true }))

/** A directory that stands for a host: its data, and what corosync reads there. */
class Host {
  readonly dataDir: string
  readonly corosyncDir: string
  readonly #random: SeededRandom

  constructor(name: string, seed = 1) {
    this.dataDir = path.join(root, name, 'data')
    this.corosyncDir = path.join(root, name, 'corosync')
    this.#random = new SeededRandom(seed)
    mkdirSync(this.corosyncDir, { recursive: true })
    this.writeCorosync(PACKAGED)
  }

  async run(line: string, input = '') {
    const out: string[] = []
    const err: string[] = []
    const io: CommandIo = {
      env: {},
      readFile: (file) => readFileSync(file, 'utf8'),
      out: (text) => void out.push(text),
      err: (text) => void err.push(text),
      terminal: null,
      input: async function* () {
        yield Buffer.from(input)
      },
      output: async () => {},
      interruptible: (work) => work(new AbortController().signal),
    }
    const commands = clusterSetupCommands({ network: systemNetwork, clock: systemClock, random: this.#random })
    const place = ['--data-dir', this.dataDir, '--corosync-dir', this.corosyncDir]
    const code = await runCli(['cluster', ...line.split(' '), ...place], commands, io)
    return { code, out: out.join('\n'), err: err.join('\n') }
  }

  async json(line: string, input?: string) {
    const { code, out, err } = await this.run(`${line} --json`, input)
    expect([code, code === EXIT.OK ? '' : err]).toEqual([EXIT.OK, ''])
    return { ...JSON.parse(out), warning: err }
  }

  read(name: string): string {
    return readFileSync(path.join(this.dataDir, name), 'utf8')
  }

  write(name: string, text: string): void {
    writeFileSync(path.join(this.dataDir, name), text)
  }

  writeCorosync(text: string): void {
    writeFileSync(path.join(this.corosyncDir, 'corosync.conf'), text)
  }

  get nodes() {
    return readCorosyncConf(readFileSync(path.join(this.corosyncDir, 'corosync.conf'), 'utf8'))?.nodes.map(
      ({ id, address }) => `${id} ${address}`,
    )
  }

  get consensusMs(): number {
    const conf = readFileSync(path.join(this.corosyncDir, 'corosync.conf'), 'utf8')
    return Number(/consensus: (\d+)/.exec(conf)?.[1])
  }

  get authkey(): Buffer {
    return readFileSync(path.join(this.corosyncDir, 'authkey'))
  }

  get config() {
    const argv = ['--config', path.join(this.dataDir, 'collie.yaml')]
    return loadConfig({ argv, env: {}, readFile: (file) => readFileSync(file, 'utf8') }).config
  }
}

describe('collie cluster init, join-info and join', () => {
  it('make three hosts nodes of one cluster, with one command for the second and the third', async () => {
    const [one, two, three] = [new Host('one'), new Host('two', 2), new Host('three', 3)]
    const made = await one.json('init --address 192.0.2.1 --name test')
    expect(made).toMatchObject({ name: 'test', cluster: 'corosync', nodes: ['192.0.2.1'], address: '192.0.2.1' })
    expect(made.next).toHaveLength(3)
    expect(one.config).toMatchObject({
      data_dir: one.dataDir,
      cluster: 'corosync',
      sheep_listen: '192.0.2.1:7000',
      advertise: '192.0.2.1',
      copies: 3,
      roles: ['api', 'store', 'gateway'],
    })

    expect(one.read('cluster.found')).toBe('test\n') // for its next start

    const { command, token, nodes, warning } = await one.json('join-info 192.0.2.2 192.0.2.3')
    expect(command).toBe(`collie cluster join ${token}`)
    expect(nodes).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.3'])
    expect(warning).toContain('as you send a password')
    expect((await one.json('join-info')).token).toBe(token)

    expect(await two.json(`join ${token} --address 192.0.2.2`)).toMatchObject({ name: 'test', nodes })
    expect(await three.json('join - --address 192.0.2.3', `${token}\n`)).toMatchObject({ name: 'test', nodes })
    for (const host of [one, two, three]) {
      expect(host.nodes).toEqual(['1 192.0.2.1', '2 192.0.2.2', '3 192.0.2.3'])
      expect(host.authkey.equals(one.authkey)).toBe(true)
      expect(decodeKeyFile(host.read('cluster.key'))).toEqual(decodeKeyFile(one.read('cluster.key')))
      for (const file of made.files)
        expect([file, statSync(file).mode & 0o077]).toEqual([file, file.endsWith('.conf') ? 0o044 : 0])
    }
    expect(() => two.read('cluster.found')).toThrow('ENOENT')
    expect(three.config).toMatchObject({ sheep_listen: '192.0.2.3:7000', roles: ['store', 'gateway'], copies: 3 })
  })

  it('take more nodes in later: those that are there get the new ones by the same command, and keep their settings', async () => {
    const [one, two] = [new Host('one'), new Host('two', 2)]
    await one.json('init --address 192.0.2.1')
    await two.json(`join ${(await one.json('join-info 192.0.2.2')).token} --address 192.0.2.2`)
    two.write('collie.yaml', two.read('collie.yaml').replace('copies: 3', 'copies: 2'))
    const { token } = await two.json('join-info 192.0.2.4')
    expect(two.nodes).toEqual(['1 192.0.2.1', '2 192.0.2.2', '3 192.0.2.4'])
    const again = await one.json(`join ${token} --address 192.0.2.1`)
    expect(again.files).not.toContain(path.join(one.dataDir, 'collie.yaml'))
    expect(one.nodes).toEqual(two.nodes)
    expect([one.consensusMs, two.consensusMs]).toEqual([1210, 1220]) // `join-info` has made one of them, and `join` the other
    expect(one.config.roles).toContain('api')
    expect(two.config.copies).toBe(2)
  })

  it('need no addresses where an etcd says who is there, and show nobody its password', async () => {
    const [one, two] = [new Host('one'), new Host('two', 2)]
    const { code, out } = await one.run('init --address 192.0.2.1 --cluster etcd://me:se-cret@192.0.2.9:2379/test')
    expect(code).toBe(EXIT.OK)
    expect(out).not.toContain('se-cret')
    expect(out).not.toContain('corosync')
    const { token, nodes } = await one.json('join-info')
    expect(nodes).toEqual([])
    const joined = await two.json(`join ${token} --address 192.0.2.2`)
    expect(joined.cluster).toBe('etcd://…@192.0.2.9:2379/test')
    expect(two.config).toMatchObject({ cluster: 'etcd://me:se-cret@192.0.2.9:2379/test', advertise: '192.0.2.2' })
    expect(two.nodes).toBeUndefined()
    expect((await one.run('join-info 192.0.2.2')).err).toContain('leave the addresses out')
  })

  it('say for people what was done, and what comes next', async () => {
    const one = new Host('one')
    const { out } = await one.run('init --address 192.0.2.1 --name test')
    expect(out.replaceAll(root, '')).toBe(
      [
        '192.0.2.1 is the first node of the cluster test.',
        '',
        'Written:',
        '  /one/data/cluster.key',
        '  /one/data/collie.yaml',
        '  /one/corosync/authkey',
        '  /one/corosync/corosync.conf',
        '',
        'Next, as root:',
        '  systemctl restart corosync',
        '  collie serve --config /one/data/collie.yaml',
        '  collie cluster join-info --data-dir /one/data ADDRESS...',
      ].join('\n'),
    )
    expect((await one.run('join-info')).err).toContain('It is for no host yet')
  })

  it('refuse what would make two clusters of one, or leave something broken', async () => {
    const [one, other] = [new Host('one'), new Host('other', 2)]
    const outcome = async (host: Host, line: string) => {
      const { code, err } = await host.run(line)
      return [code, err]
    }
    expect(await outcome(one, 'join-info')).toEqual([EXIT.NO_INPUT, expect.stringContaining('collie cluster init')])
    expect(await outcome(one, 'init --address a_b')).toEqual([
      EXIT.USAGE,
      expect.stringContaining('"a_b" is no address'),
    ])
    one.writeCorosync('totem {\n  cluster_name: pacemaker\n}\n')
    expect(await outcome(one, 'init --address 192.0.2.1')).toEqual([
      EXIT.CANNOT_CREATE,
      expect.stringMatching(/corosync\.conf is of something else .* move it away/),
    ])
    expect(() => one.read('cluster.key')).toThrow('ENOENT')
    one.writeCorosync(PACKAGED)
    await one.json('init --address 192.0.2.1')
    await other.json('init --address 192.0.2.8')
    expect(await outcome(one, 'init --address 192.0.2.1')).toEqual([
      EXIT.CANNOT_CREATE,
      expect.stringContaining('already'),
    ])
    const { token } = await one.json('join-info 192.0.2.2')
    expect(await outcome(other, `join ${token} --address 192.0.2.2`)).toEqual([
      EXIT.CANNOT_CREATE,
      expect.stringContaining('needs another data directory'),
    ])
    const third = new Host('third', 3)
    expect(await outcome(third, `join ${token} --address 192.0.2.3`)).toEqual([
      EXIT.USAGE,
      expect.stringContaining('join-info ADDRESS'),
    ])
    expect(await outcome(third, `join ${token.slice(0, -9)}`)).toEqual([EXIT.USAGE, expect.stringContaining('damaged')])
    one.write('cluster.key', 'nothing')
    expect(await outcome(one, 'join-info')).toEqual([EXIT.DATA_UNSOUND, expect.stringContaining('no key file')])
  })

  it('have help that names all they take', async () => {
    const one = new Host('one')
    for (const { name, options = [], operands = [] } of clusterSetupCommands({
      network: systemNetwork,
      clock: systemClock,
      random: new SeededRandom(1),
    })) {
      const { code, out } = await one.run(`${name.slice('cluster '.length)} --help`)
      expect(code).toBe(EXIT.OK)
      for (const word of [
        ...options.map(({ flag }) => `--${flag}`),
        ...operands.map((operand) => operand.name),
        '--json',
      ])
        expect(out).toContain(word)
    }
  })
})
