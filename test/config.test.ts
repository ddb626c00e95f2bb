import { describe, expect, it } from 'vitest'
import { ConfigError, type ConfigInputs, loadConfig } from '../src/config.ts'
import { isOwnStore } from '../src/own-store.ts'
import { SETTINGS } from '../src/settings.ts'

const FILES: Record<string, string> = {
  'collie.yaml': 'listen: 127.0.0.1:1\nlog:\n  level: debug\nquota: { volumes: 50 }\nadvertise:\nroles: [store]\n',
}

const readFile = (path: string) => {
  const text = FILES[path]
  if (text === undefined) throw new Error(`ENOENT: no such file or directory, open '${path}'`)
  return text
}

const load = (inputs: Partial<ConfigInputs> = {}) => loadConfig({ argv: [], env: {}, readFile, ...inputs })

function problems(inputs: Partial<ConfigInputs>): string {
  try {
    load(inputs)
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  return expect.unreachable()
}

describe('settings', () => {
  it('has defaults that work without any setting', () => {
    const { config, sources, warnings } = load()
    expect(config).toMatchObject({
      data_dir: './data',
      roles: ['api', 'store', 'gateway'],
      listen: '127.0.0.1:8776',
      sheep_listen: '127.0.0.1:7000',
      nbd_listen: '127.0.0.1:10809',
      auth: 'local',
      durability: 'flush',
      log: { level: 'info' },
      quota: { volumes: -1, gigabytes: -1, per_volume_gigabytes: -1 },
    })
    expect(new Set(sources.values())).toEqual(new Set(['default']))
    expect(warnings).toEqual([])
  })

  it('tells where a database is, and never its password', () => {
    const { config } = load({ env: { COLLIE_DATABASE: 'postgres://collie:secret@db.example:5433/cinder' } })
    expect(config.database).toBe('postgres://collie:secret@db.example:5433/cinder')
    for (const wrong of ['mysql://collie:secret@db.example/cinder', 'postgres://collie:secret@db.example', 'secret']) {
      const problem = problems({ env: { COLLIE_DATABASE: wrong } })
      expect(problem).toContain('database: expected postgres://')
      expect(problem).not.toContain('secret')
    }
  })

  it('takes flags before the environment, that before the file, that before the default', () => {
    const { config, sources } = load({
      argv: ['--config', 'collie.yaml', '--log-level', 'warn'],
      env: { COLLIE_LOG_LEVEL: 'error', COLLIE_QUOTA_VOLUMES: '70' },
    })
    expect(config).toMatchObject({
      listen: '127.0.0.1:1',
      log: { level: 'warn' },
      quota: { volumes: 70, snapshots: -1 },
    })
    expect(Object.fromEntries(sources)).toMatchObject({
      'log.level': '--log-level',
      'quota.volumes': 'COLLIE_QUOTA_VOLUMES',
      listen: 'collie.yaml',
      data_dir: 'default',
      advertise: 'default', // null in the file means "not set"
    })
  })

  it('takes the file from the environment too', () => {
    expect(load({ env: { COLLIE_CONFIG: 'collie.yaml' } }).config.roles).toEqual(['store'])
    expect(load({ env: { COLLIE_CONFIG: 'absent' }, argv: ['--config=collie.yaml'] }).config.roles).toEqual(['store'])
  })

  it('reads lists and numbers from text', () => {
    const { config } = load({
      argv: ['--roles', 'store, gateway', '--quota-per-volume-gigabytes=-1', '--journal-size-mib=64'],
    })
    expect(config).toMatchObject({
      roles: ['store', 'gateway'],
      quota: { per_volume_gigabytes: -1 },
      journal_size_mib: 64,
    })
  })

  it('gives every setting a flag, a variable and a meaning', () => {
    for (const { name, flag, variable, description } of SETTINGS) {
      expect(flag).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/)
      expect(variable).toMatch(/^COLLIE_[A-Z0-9]+(_[A-Z0-9]+)*$/)
      expect(description, name).toMatch(/\.$/)
    }
    expect(new Set(SETTINGS.map(({ flag }) => flag)).size).toBe(SETTINGS.length)
  })

  it('has the own store for its one backend, and takes others as a list', () => {
    expect(load().config.backends).toMatchObject([{ name: 'sheepdog', driver: 'sheepdog', data_dir: null, thin: true }])
    FILES.backends =
      'backends:\n  - name: one\n  - { name: two, data_dir: /srv/two, max_over_subscription_ratio: 1.5 }\n'
    const { config, sources } = load({ argv: ['--config', 'backends', '--scheduler-goodness-weight=-0.5'] })
    expect(config.backends).toMatchObject([{ name: 'one' }, { name: 'two', max_over_subscription_ratio: 1.5 }])
    expect(config.backends.map((backend) => isOwnStore(backend, config))).toEqual([true, false])
    expect([sources.get('backends'), config.scheduler.goodness_weight]).toEqual(['backends', -0.5])
    expect(load({ env: { COLLIE_BACKENDS: '[{"name":"x"}]' } }).config.backends).toMatchObject([{ name: 'x' }])
  })

  it('cannot be changed', () => {
    const { config } = load()
    expect(() => Object.assign(config.backends[0]!, { name: 'x' })).toThrow(TypeError)
    expect(() => Object.assign(config, { listen: 'x' })).toThrow(TypeError)
    expect(() => Object.assign(config.log, { level: 'x' })).toThrow(TypeError)
  })

  it('points out variables that are no setting', () => {
    expect(load({ env: { COLLIE_LISTNE: 'x', HOME: '/' } }).warnings).toEqual([
      'COLLIE_LISTNE is set in the environment, but there is no such setting',
    ])
  })
})

describe('settings that cannot be used', () => {
  it('wants a certificate with TLS, and TLS with a certificate', () => {
    const [cert, key] = ['--nbd-tls-cert=cert.pem', '--nbd-tls-key=key.pem']
    expect(problems({ argv: ['--nbd-tls=required', key] })).toMatch(/^nbd_tls_cert: `nbd_tls: required` needs/)
    expect(problems({ argv: ['--nbd-tls=optional', cert] })).toMatch(/^nbd_tls_key: /)
    expect(problems({ argv: ['--nbd-tls-ca=ca.pem'] })).toMatch(/^nbd_tls: /)
    expect(load({ argv: ['--nbd-tls=required', cert, key] }).config.nbd_tls_ca).toBeNull()
  })

  it('names each setting, where it came from, and why', () => {
    const message = problems({
      argv: ['--listen', 'nonsense'],
      env: { COLLIE_LOG_LEVEL: 'loud', COLLIE_QUOTA_VOLUMES: 'many', COLLIE_ROLES: 'store,cook' },
    })
    expect(message.split('\n')).toHaveLength(4)
    expect(message).toContain('listen: expected host:port or the path of a unix socket (from --listen: "nonsense")')
    expect(message).toMatch(/^log\.level: .*"info".* \(from COLLIE_LOG_LEVEL: "loud"\)$/m)
    expect(message).toMatch(/^quota\.volumes: .*expected number.* \(from COLLIE_QUOTA_VOLUMES: "many"\)$/m)
    expect(message).toMatch(/^roles: .* \(from COLLIE_ROLES: \["store","cook"\]\)$/m)
  })

  it('names what is wrong with backends', () => {
    const wrong = (backends: object[], more: string[] = []) =>
      problems({ argv: [`--backends=${JSON.stringify(backends)}`, ...more] })
    expect(wrong([{ name: 'a b' }])).toMatch(
      /^backends\.name: expected letters.* \(from --backends: \[\{"name":"a b"\}\]\)$/,
    )
    expect(wrong([{ name: 'a', color: 'red' }])).toContain('backends: ')
    expect(wrong([])).toContain('backends: ')
    expect(problems({ argv: ['--backends', 'a,b'] })).toContain('backends: ')
    expect(wrong([{ name: 'a' }, { name: 'a' }])).toBe('backends: there are two of the name a')
    expect(wrong([{ name: 'a', store: '127.0.0.1:7001' }])).toContain('backends: a needs `control`')
    expect(wrong([{ name: 'a', availability_zone: 'az1' }])).toContain('availability_zone: no backend is in nova')
    expect(wrong([{ name: 'a', availability_zone: 'az1' }, { name: 'b' }], ['--host=a b'])).toContain('host: ')
  })

  it('names the file and what is wrong in it', () => {
    FILES.unknown = 'log: { levle: debug }\nlisten: 127.0.0.1:1\n'
    FILES.broken = 'listen: [\n'
    FILES.scalar = 'hello\n'
    FILES.group = 'log: debug\n'
    expect(problems({ argv: ['--config', 'unknown'] })).toMatch(
      /^log\.levle: there is no such setting \(from unknown\)/,
    )
    expect(problems({ argv: ['--config', 'broken'] })).toMatch(/^broken: .*line 2/s)
    expect(problems({ argv: ['--config', 'scalar'] })).toMatch(/^scalar: expected settings/)
    expect(problems({ argv: ['--config', 'group'] })).toMatch(/^log: there is no such setting \(from group\)/)
    expect(problems({ argv: ['--config', 'absent'] })).toMatch(/^absent: ENOENT/)
  })

  it('keeps the password of an etcd to itself', () => {
    expect(problems({ argv: ['--cluster', 'etcd://me:se@cret@host/x'] })).toContain('"etcd://…@host/x"')
  })

  it('refuses a flag that is no setting', () => {
    expect(problems({ argv: ['--lisen', 'x'] })).toContain("'--lisen'")
  })

  const clustered = ['--cluster', 'corosync']

  it.each([
    ['a gateway without a store', ['--roles', 'api,gateway'], /^roles: .*add `store`/],
    ['a role twice', ['--roles', 'store,store'], /^roles: each role at most once/],
    ['a cluster that is none', ['--cluster', 'zookeeper'], /^cluster: expected `single`, `corosync` or `etcd:/],
    ['an etcd without a port', ['--cluster', 'etcd://host/x'], /^cluster: expected /],
    [
      'a cluster without a key',
      [...clustered, '--sheep-listen', '10.0.0.1:7000'],
      /^cluster_key_file: .*collie cluster init/,
    ],
    [
      'a node of a cluster at a path',
      [...clustered, '--sheep-listen', './sheep.sock'],
      /^sheep_listen: .*a host and a port/,
    ],
    [
      'a node that the others cannot name',
      [...clustered, '--cluster-key-file', 'key', '--sheep-listen', '0.0.0.0:7000'],
      /^advertise: other nodes/,
    ],
    [
      'more copies to be sure of than there are',
      [...clustered, '--copies-min', '2'],
      /^copies_min: .*there are 1 copies/,
    ],
    ['more copies than nodes', ['--copies', '2'], /^copies: .*leave it at 1/],
    ['S3 without a bucket', ['--backup-target', 's3'], /^backup_s3\.bucket: /],
    [
      'S3 without a secret',
      ['--backup-target', 's3', '--backup-s3-bucket', 'b', '--backup-s3-access-key', 'k'],
      /^backup_s3\.secret_key: /,
    ],
    ['Swift without an account', ['--backup-target', 'swift'], /^backup_swift\.auth_url: /],
    ['noauth for everyone', ['--auth', 'noauth', '--listen', '0.0.0.0:8776'], /^auth: .*loopback/],
    ['the Sheepdog protocol for everyone', ['--sheep-listen', '10.0.0.1:7000'], /^sheep_listen: .*loopback/],
    ['a gateway that nobody can name', ['--nbd-listen', '0.0.0.0:10809'], /^advertise: /],
    ['one address twice', ['--nbd-listen', '127.0.0.1:7000'], /127\.0\.0\.1:7000 can only be used once/],
  ])('refuses %s, and says what to do', (_, argv, message) => {
    expect(problems({ argv })).toMatch(message)
  })

  it.each([
    [['--auth', 'noauth', '--listen', '[::1]:8776']],
    [['--auth', 'noauth', '--listen', 'localhost:0', '--sheep-listen', '127.0.0.1:0', '--nbd-listen', '127.0.0.1:0']],
    [['--listen', '0.0.0.0:8776']],
    [['--nbd-listen', '0.0.0.0:10809', '--advertise', 'node1.example.org']],
    [['--nbd-listen', '0.0.0.0:10809', '--roles', 'api,store']],
    [['--nbd-listen', './data/nbd2.sock']],
    [[...clustered, '--copies', '3', '--copies-min', '2', '--roles', 'gateway']],
    [[...clustered, '--sheep-listen', '10.0.0.1:7000', '--cluster-key-file', 'key', '--zone', '7']],
    [['--cluster', 'etcd://a:2379,[::1]:2379']],
    [['--cluster', 'etcds://me:secret@a.example.org:2379/one', '--rebalance-delay', '0']],
  ])('accepts %j', (argv) => {
    expect(() => load({ argv })).not.toThrow()
  })
})
