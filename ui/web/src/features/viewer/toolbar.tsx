import { Tooltip } from '@mantine/core';
import type { ReactNode } from 'react';
import {
  AngleIcon,
  ContrastIcon,
  EllipseIcon,
  FlipHorizontalIcon,
  FlipVerticalIcon,
  InvertIcon,
  KeyboardIcon,
  OneUpIcon,
  PanIcon,
  PauseIcon,
  PlayIcon,
  ProbeIcon,
  ResetIcon,
  RotateIcon,
  RulerIcon,
  ScrollIcon,
  TrashIcon,
  TwoUpIcon,
  ZoomIcon,
} from '../../components/icons';
import { type MessageKey, useTranslation } from '../../i18n';
import type { PointerTool } from './cornerstone';
import type { Command } from './shortcuts';
import classes from './toolbar.module.css';
import type { PaneControl } from './viewport-pane';
import { presetAt, presetsOf, windowNumber } from './window-presets';

type Icon = (props: { size?: number }) => ReactNode;

const TOOLS: { tool: PointerTool; icon: Icon; text: MessageKey; key?: string }[] = [
  { tool: 'window', icon: ContrastIcon, text: 'tool.window', key: 'W' },
  { tool: 'zoom', icon: ZoomIcon, text: 'tool.zoom', key: 'Z' },
  { tool: 'pan', icon: PanIcon, text: 'tool.pan', key: 'P' },
  { tool: 'scroll', icon: ScrollIcon, text: 'tool.scroll', key: 'S' },
];

const MEASURES: { tool: PointerTool; icon: Icon; text: MessageKey; key?: string }[] = [
  { tool: 'length', icon: RulerIcon, text: 'tool.length', key: 'M' },
  { tool: 'angle', icon: AngleIcon, text: 'tool.angle' },
  { tool: 'ellipse', icon: EllipseIcon, text: 'tool.ellipse' },
  { tool: 'probe', icon: ProbeIcon, text: 'tool.probe' },
];

const ACTIONS: { command: Command; icon: Icon; text: MessageKey; key: string }[] = [
  { command: 'invert', icon: InvertIcon, text: 'tool.invert', key: 'I' },
  { command: 'flipHorizontal', icon: FlipHorizontalIcon, text: 'tool.flipHorizontal', key: 'H' },
  { command: 'flipVertical', icon: FlipVerticalIcon, text: 'tool.flipVertical', key: 'V' },
  { command: 'rotateRight', icon: RotateIcon, text: 'tool.rotate', key: 'R' },
];

const RATES = [2, 5, 10, 15, 20, 25, 30, 60];

interface ToolButtonProps {
  label: string;
  shortcut?: string;
  icon: Icon;
  pressed?: boolean;
  disabled?: boolean;
  onClick: () => void;
}

function ToolButton({ label, shortcut, icon: Icon, pressed, disabled, onClick }: ToolButtonProps) {
  return (
    <Tooltip
      label={shortcut ? `${label} (${shortcut})` : label}
      openDelay={350}
      withinPortal={false}
      transitionProps={{ duration: 0 }}
    >
      <button
        type="button"
        className={classes.button}
        aria-label={label}
        aria-pressed={pressed}
        aria-disabled={disabled}
        onClick={() => {
          if (!disabled) onClick();
        }}
      >
        <Icon size={20} />
      </button>
    </Tooltip>
  );
}

interface ToolbarProps {
  control: PaneControl | null;
  modality: string;
  tool: PointerTool;
  layout: 1 | 2;
  onTool: (tool: PointerTool) => void;
  onLayout: (layout: 1 | 2) => void;
  onRemoveMarks: () => void;
  onHelp: () => void;
}

/** The tools of the active picture. Each has a name, most have a key. */
export function Toolbar(props: ToolbarProps) {
  const { control, tool, layout, onTool, onLayout, onRemoveMarks, onHelp } = props;
  const { t } = useTranslation();
  const idle = !control?.view || control.document || control.state.painted === null;
  const run = (command: Command) => control?.run(command);
  return (
    <div className={classes.toolbar} role="toolbar" aria-label={t('viewer.toolbar')}>
      <div className={classes.group}>
        {TOOLS.map((one) => (
          <ToolButton
            key={one.tool}
            label={t(one.text)}
            shortcut={one.key}
            icon={one.icon}
            pressed={tool === one.tool}
            onClick={() => onTool(one.tool)}
          />
        ))}
      </div>
      <PresetChoice {...props} idle={idle} />
      <div className={classes.group}>
        {ACTIONS.map((one) => (
          <ToolButton
            key={one.command}
            label={t(one.text)}
            shortcut={one.key}
            icon={one.icon}
            pressed={one.command === 'invert' ? Boolean(control?.state.inverted) : undefined}
            disabled={idle}
            onClick={() => run(one.command)}
          />
        ))}
        <ToolButton
          label={t('tool.reset')}
          shortcut={t('key.space')}
          icon={ResetIcon}
          disabled={idle}
          onClick={() => run('reset')}
        />
      </div>
      <div className={classes.group}>
        {MEASURES.map((one) => (
          <ToolButton
            key={one.tool}
            label={t(one.text)}
            shortcut={one.key}
            icon={one.icon}
            pressed={tool === one.tool}
            onClick={() => onTool(one.tool)}
          />
        ))}
        <ToolButton label={t('tool.removeMarks')} icon={TrashIcon} onClick={onRemoveMarks} />
      </div>
      <div className={classes.group}>
        <ToolButton
          label={t(control?.playing ? 'tool.pause' : 'tool.play')}
          shortcut="C"
          icon={control?.playing ? PauseIcon : PlayIcon}
          disabled={idle || control?.rate === null}
          onClick={() => run('cine')}
        />
        <RateChoice control={control} idle={idle} />
      </div>
      <div className={classes.group}>
        <ToolButton
          label={t('tool.oneUp')}
          shortcut="0"
          icon={OneUpIcon}
          pressed={layout === 1}
          onClick={() => onLayout(1)}
        />
        <ToolButton
          label={t('tool.twoUp')}
          shortcut="0"
          icon={TwoUpIcon}
          pressed={layout === 2}
          onClick={() => onLayout(2)}
        />
      </div>
      <div className={classes.last}>
        <ToolButton label={t('help.title')} shortcut="?" icon={KeyboardIcon} onClick={onHelp} />
      </div>
    </div>
  );
}

function PresetChoice({ control, modality, idle }: ToolbarProps & { idle: boolean }) {
  const { t, measure } = useTranslation();
  const presets = presetsOf(modality);
  const window = control?.state.window;
  const source = control?.state.source;
  const colour = Boolean(control?.state.colour);
  const chosen = window && source ? presetAt(presets, source, window) : -1;
  return (
    <label className={classes.choice}>
      <span className={classes.choiceLabel}>{t('viewer.window')}</span>
      <select
        value={idle || colour ? '' : String(chosen)}
        disabled={idle || colour}
        data-testid="window-preset"
        onChange={(event) => control?.run(`preset${Number(event.target.value) + 1}`)}
      >
        {(idle || colour) && <option value="">–</option>}
        {!idle && !colour && chosen < 0 && window && (
          <option value="-1">
            W {measure(windowNumber(window.width, window.width))} C{' '}
            {measure(windowNumber(window.center, window.width))}
          </option>
        )}
        {!idle &&
          !colour &&
          source &&
          presets.map((preset, at) => {
            const { width, center } = preset.window(source);
            return (
              <option key={preset.key} value={at}>
                {at + 1} {t(preset.key)} ({measure(windowNumber(width, width))}/
                {measure(windowNumber(center, width))})
              </option>
            );
          })}
      </select>
    </label>
  );
}

function RateChoice({ control, idle }: { control: PaneControl | null; idle: boolean }) {
  const { t, number } = useTranslation();
  const rate = control?.rate ?? null;
  if (idle || rate === null) return null;
  const rates = [...new Set([...RATES, rate])].sort((one, other) => one - other);
  return (
    <label className={classes.choice}>
      <span className={classes.hidden}>{t('tool.rate')}</span>
      <select value={rate} onChange={(event) => control?.setRate(Number(event.target.value))}>
        {rates.map((one) => (
          <option key={one} value={one}>
            {t('tool.perSecond', { rate: number(Number(one.toFixed(1))) })}
          </option>
        ))}
      </select>
    </label>
  );
}
