/**
 * The language of rules in policy files of OpenStack (oslo.policy, "Policy Rule Expressions"): `role:member and
 * project_id:%(project_id)s`, `rule:NAME`, `@`, `!`, `and`, `or`, `not`, parentheses; or, as of old, a list of alternatives, each a list of
 * checks that must all hold. Checks that ask another server (`http:`) are refused.
 */

/** Who asks, in the names of the language: `user_id`, `project_id`, `roles`, `is_admin` and so on. */
export type Credentials = Readonly<Record<string, string | boolean | null | readonly string[]>>
/** What it is done to, for `%(NAME)s`. */
export type PolicyTarget = Readonly<Record<string, string>>

export interface Question {
  credentials: Credentials
  target: PolicyTarget
  /** Whether the rule of that name holds for the same question. */
  rule(name: string): boolean
}

export type PolicyCheck = (question: Question) => boolean

/** A rule that cannot be read, with the reason. */
export class PolicySyntaxError extends Error {
  override readonly name = 'PolicySyntaxError'
}

export interface ParsedRule {
  check: PolicyCheck
  /** Rules that it names. */
  uses: readonly string[]
}

/** `value` is what stands behind the name in the file. Throws PolicySyntaxError. */
export function parseRule(value: unknown): ParsedRule {
  if (typeof value === 'string') return parseText(value)
  if (!Array.isArray(value)) throw new PolicySyntaxError('it is neither text nor a list')
  const alternatives = value.map((alternative: unknown) => {
    const parts = (Array.isArray(alternative) ? alternative : [alternative]).map(parseRule)
    return { check: all(parts.map(({ check }) => check)), uses: parts.flatMap(({ uses }) => uses) }
  })
  const uses = alternatives.flatMap((alternative) => alternative.uses)
  return { check: value.length === 0 ? always : any(alternatives.map(({ check }) => check)), uses }
}

const always: PolicyCheck = () => true
const never: PolicyCheck = () => false
const all = (checks: readonly PolicyCheck[]): PolicyCheck => {
  const [only] = checks
  return checks.length === 1 ? only! : (question) => checks.every((check) => check(question))
}
const any = (checks: readonly PolicyCheck[]): PolicyCheck => {
  const [only] = checks
  return checks.length === 1 ? only! : (question) => checks.some((check) => check(question))
}

/** Parentheses, quoted text, and whatever else stands together; a quoted part may have spaces, and `%(NAME)s` is no parenthesis. */
const TOKEN = /\s*(?:(\()|(\))|((?:'[^']*'|"[^"]*"|%\([^)]*\)s|[^\s()'"])+))/y

function parseText(text: string): ParsedRule {
  if (text.trim() === '') return { check: always, uses: [] }
  const tokens = tokensOf(text)
  const uses: string[] = []
  let position = 0
  const isWord = (word: string) => tokens[position]?.toLowerCase() === word

  function either(): PolicyCheck {
    const checks = [both()]
    while (isWord('or')) {
      position++
      checks.push(both())
    }
    return any(checks)
  }

  function both(): PolicyCheck {
    const checks = [single()]
    while (isWord('and')) {
      position++
      checks.push(single())
    }
    return all(checks)
  }

  function single(): PolicyCheck {
    const token = tokens[position++]
    if (token === undefined || /^(and|or|\))$/i.test(token)) {
      throw new PolicySyntaxError(`a check is missing before ${token === undefined ? 'its end' : `\`${token}\``}`)
    }
    if (token.toLowerCase() === 'not') {
      const check = single()
      return (question) => !check(question)
    }
    if (token !== '(') return checkOf(token, uses)
    const inner = either()
    if (tokens[position++] !== ')') throw new PolicySyntaxError('a parenthesis is not closed')
    return inner
  }

  const check = either()
  if (position < tokens.length)
    throw new PolicySyntaxError(`\`${tokens[position]}\` stands where \`and\`, \`or\` or its end should be`)
  return { check, uses }
}

function tokensOf(text: string): string[] {
  const tokens: string[] = []
  TOKEN.lastIndex = 0
  for (let end = text.trimEnd().length; TOKEN.lastIndex < end; ) {
    const from = TOKEN.lastIndex
    const found = TOKEN.exec(text)
    if (found === null) throw new PolicySyntaxError(`\`${text.slice(from).trim()}\` cannot be read`)
    tokens.push(found[1] ?? found[2] ?? found[3]!)
  }
  return tokens
}

function checkOf(token: string, uses: string[]): PolicyCheck {
  if (token === '@') return always
  if (token === '!') return never
  const colon = token.indexOf(':')
  if (colon < 1) throw new PolicySyntaxError(`\`${token}\` is no check: it has no colon`)
  const [kind, match] = [token.slice(0, colon), token.slice(colon + 1)]
  if (kind === 'http' || kind === 'https') throw new PolicySyntaxError(`\`${token}\`: no other server is asked here`)
  if (kind === 'rule') {
    uses.push(match)
    return ({ rule }) => rule(match)
  }
  if (kind === 'role') return ({ credentials, target }) => hasRole(credentials, filled(match, target))
  const literal = literalOf(kind)
  return ({ credentials, target }) => {
    const expected = filled(match, target)
    if (expected === null) return false
    const found = literal ?? credentials[kind]
    if (Array.isArray(found)) return found.includes(expected)
    return shown(found as string | boolean | null | undefined) === expected
  }
}

function hasRole(credentials: Credentials, role: string | null): boolean {
  const roles = credentials.roles as readonly string[]
  return role !== null && roles.some((one) => one.toLowerCase() === role.toLowerCase())
}

/** With what the target has put in; null when it does not have it. */
function filled(match: string, target: PolicyTarget): string | null {
  let isWhole = true
  const text = match.replace(/%\(([^)]*)\)s/g, (_, name: string) => {
    if (Object.hasOwn(target, name)) return target[name]!
    isWhole = false
    return ''
  })
  return isWhole ? text : null
}

/** Text in quotes, a number, True, False or None; null for what names a credential. */
function literalOf(kind: string): string | null {
  const quoted = /^(['"])(.*)\1$/.exec(kind)
  if (quoted) return quoted[2]!
  return /^(True|False|None|-?\d+)$/.test(kind) ? kind : null
}

/** As Python shows it, since the right side is text. */
function shown(value: string | boolean | null | undefined): string | null {
  if (value === undefined) return null
  if (value === null) return 'None'
  return typeof value === 'boolean' ? (value ? 'True' : 'False') : value
}
