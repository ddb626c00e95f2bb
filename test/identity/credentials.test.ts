import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { ensureLocalIdentity } from '../../src/identity/credentials.ts'
import { createPasswordChecker } from '../../src/identity/password.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'

let dataDir: string
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'collie-identity-'))
})
afterEach(() => rmSync(dataDir, { recursive: true }))

const logged: string[] = []
const ensure = (baseUrl = 'http://127.0.0.1:8776') =>
  ensureLocalIdentity({
    dataDir,
    baseUrl,
    random: systemRandom,
    log: createLog('info', { write: (line) => logged.push(line) }),
  })
const read = (name: string) => readFileSync(join(dataDir, name), 'utf8')
const variables = () =>
  Object.fromEntries([...read('openrc').matchAll(/^export (\w+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]))

describe('the first start', () => {
  test('makes an account and writes its credentials for its owner only', async () => {
    const account = await ensure()
    expect(readdirSync(dataDir).sort()).toEqual(['clouds.yaml', 'identity.json', 'openrc'])
    for (const name of readdirSync(dataDir)) expect(statSync(join(dataDir, name)).mode & 0o777).toBe(0o600)
    const { OS_PASSWORD: password, ...rest } = variables()
    expect(rest).toEqual({
      OS_AUTH_URL: 'http://127.0.0.1:8776/identity/v3',
      OS_USERNAME: 'admin',
      OS_PROJECT_NAME: 'collie',
      OS_USER_DOMAIN_NAME: 'Default',
      OS_USER_DOMAIN_ID: 'default',
      OS_PROJECT_DOMAIN_NAME: 'Default',
      OS_PROJECT_DOMAIN_ID: 'default',
      OS_IDENTITY_API_VERSION: '3',
      OS_REGION_NAME: 'RegionOne',
      OS_VOLUME_API_VERSION: '3.65',
    })
    expect(parse(read('clouds.yaml')).clouds.collie.auth).toMatchObject({
      auth_url: 'http://127.0.0.1:8776/identity/v3',
      password,
    })
    expect(password).toMatch(/^[\w-]{24}$/)
    expect(await createPasswordChecker().check(password!, account.passwordHash)).toBe(true)
    expect(await createPasswordChecker().check(`${password}x`, account.passwordHash)).toBe(false)
  })

  test('tells nobody the password: not the log, not the file of the server', async () => {
    await ensure()
    const { OS_PASSWORD: password } = variables()
    expect(logged.join('') + read('identity.json')).not.toContain(password)
  })

  test('gives every installation another password and other ids', async () => {
    const first = await ensure()
    const { OS_PASSWORD: password } = variables()
    rmSync(join(dataDir, 'identity.json'))
    const second = await ensure()
    expect(second.userId).not.toBe(first.userId)
    expect(variables().OS_PASSWORD).not.toBe(password)
  })
})

describe('later starts', () => {
  test('keep everything, and let the address follow when it has changed', async () => {
    const account = await ensure()
    const before = read('openrc')
    expect(await ensure()).toEqual(account)
    expect(read('openrc')).toBe(before)
    expect(await ensure('http://10.0.0.7:9000')).toEqual(account)
    expect(read('openrc')).toBe(before.replace('http://127.0.0.1:8776', 'http://10.0.0.7:9000'))
    expect(parse(read('clouds.yaml')).clouds.collie.auth.auth_url).toBe('http://10.0.0.7:9000/identity/v3')
    expect(statSync(join(dataDir, 'openrc')).mode & 0o777).toBe(0o600)
  })

  test('leave credentials away that the operator took away, and keep lines that the operator added', async () => {
    await ensure()
    rmSync(join(dataDir, 'clouds.yaml'))
    writeFileSync(join(dataDir, 'openrc'), `${read('openrc')}export MINE=1\n`)
    await ensure('http://10.0.0.7:9000')
    expect(readdirSync(dataDir).sort()).toEqual(['identity.json', 'openrc'])
    expect(variables()).toMatchObject({ MINE: '1', OS_AUTH_URL: 'http://10.0.0.7:9000/identity/v3' })
  })

  test('do not go on with a file that they cannot read', async () => {
    await ensure()
    chmodSync(join(dataDir, 'identity.json'), 0o600)
    writeFileSync(join(dataDir, 'identity.json'), '{"userId": 1}')
    await expect(ensure()).rejects.toThrow()
  })
})
